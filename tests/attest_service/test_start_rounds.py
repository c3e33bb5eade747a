"""Starts of applications, round after round: a real agent's log, a real TPM, decisions of the site and of others."""

import asyncio
import base64
import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from umec_attest.agent.requests import Start
from umec_attest.agent.start_log import START_LOG, StartLog
from umec_attest.ima import parse_runtime_policy
from umec_attest.predict import predict
from umec_attest.starts.entry import MAX_PART, parse_start
from umec_attest.testing import firmware
from umec_attest.testing.runtime import RuntimeList
from umec_attest.testing.runtime import run as measure
from umec_core.jose import KeySet, sign_jwt

PLATFORM = generate_private_key(SECP256R1())
ISSUER = "https://edge.example:8443/platform/v1"
IMAGE = "sha256:" + "ab" * 32
TOOL = ("/usr/bin/tool", b"content")


@dataclass
class Host:
    """A node that starts applications, with the agent's own log."""

    world: object
    booted: object
    folder: Path
    log: StartLog
    ran: RuntimeList | None = None

    def decision(self, instance="cam-1", tenant="acme", *, key=PLATFORM, **claims):
        now = int(self.world.clock().timestamp())
        said = {
            "iss": ISSUER,
            "iat": now,
            "exp": now + 120,
            "tenant": tenant,
            "node": self.booted.node.name,
            "instance": instance,
            "digest": IMAGE,
            **claims,
        }
        return sign_jwt(said, key, typ="umec-admission+jwt")

    def starts(self, instance="cam-1", tenant="acme", **claims):
        """An honest start: by netd's path."""
        asked = Start(tenant, instance, IMAGE, self.decision(instance, tenant, **claims))
        return self.log.add(asked, self.booted.node.name, self.world.clock())

    def forges(self, **changes):
        """Root on the node, past the agent: writes any line, and extends the PCR with it."""
        said = {
            "boot": self.boot,
            "number": len(self.data.splitlines()),
            "time": int(self.world.clock().timestamp()),
            "node": self.booted.node.name,
            "tenant": "acme",
            "instance": "cam-1",
            "image": IMAGE,
        }
        said |= {"decision": changes.pop("decision", None) or self.decision()} | changes
        line = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
        (self.folder / START_LOG).write_bytes(self.data + line + b"\n")
        self.extends(line)

    def extends(self, line):
        digest = hashlib.sha256(line).digest()
        self.booted.node.tpm.do(lambda esys: firmware.extend(esys, 15, digest))

    @property
    def boot(self):
        return self.booted.node.tpm.do(lambda esys: int(esys.read_clock().clockInfo.resetCount))

    @property
    def data(self):
        path = self.folder / START_LOG
        return path.read_bytes() if path.exists() else b""

    def reboot(self):
        self.booted.reboot()
        self.log = StartLog(self.folder, self.booted.node.tpm)

    def runs(self):
        """Its kernel measures what runs, from a boot on."""
        self.ran = RuntimeList()
        for entry in RuntimeList.of(predict(self.booted.owner.image).pcrs | {8: bytes(32)}, [TOOL]).entries:
            measure(self.booted.tpm, self.ran, entry)

    def answer(self, challenge, data=None):
        return self.booted.node.evidence(
            challenge, boot_log=self.booted.log, runtime=self.ran, starts=self.data if data is None else data
        )


@contextlib.contextmanager
def hosting(world):
    folder = world.folder / "agent"
    folder.mkdir()
    with world.tpms.booted() as booted:
        yield Host(world, booted, folder, StartLog(folder, booted.node.tpm))


async def rounds(world, host, *, status=200, data=None, change=None):
    challenge = await world.challenge()
    answer = await asyncio.to_thread(host.answer, challenge, data)
    return await world.post("evidence", answer if change is None else change(answer), status=status)


async def ready(world, host, **options):
    await world.enrol(host.booted.node, ticket=await world.ticket(host.booted.node))
    await world.reference(starts=True, **options)
    return await rounds(world, host)


def ids(said):
    return [finding["id"] for finding in said["findings"]]


@pytest.fixture
def run_host(run, tmp_path):
    """A world whose verifier knows the keys of the site's admission, and a host in it."""

    def runner(body, **changes):
        keys = tmp_path / "decisions.jwks"
        keys.write_text(json.dumps(KeySet([PLATFORM.public_key()]).jwks()))

        async def opened(world):
            with hosting(world) as host:
                await body(world, host)

        run(opened, **{"decision_jwks": keys, **changes})

    return runner


def test_a_life_of_starts_stops_reboots_and_restarts_raises_no_alarm(run_host):
    async def body(world, host):
        assert (await ready(world, host))["standing"] == "trusted"
        assert (await world.challenge())["starts"] == {"from": 0}
        assert 15 in (await world.challenge())["pcrs"]["sha256"]
        for number in range(3):
            host.starts(f"cam-{number}")
        assert ids(await rounds(world, host)) == []
        challenge = await world.challenge()
        assert challenge["starts"] == {"from": 3}
        answer = await asyncio.to_thread(host.answer, challenge)
        assert base64.b64decode(answer["starts"]) == b""
        host.starts("cam-0")  # between quote and verdict
        assert (await world.post("evidence", answer))["standing"] == "trusted"
        for again in range(12):  # starts, stops and starts again, with time going by
            world.clock.advance(25)
            if again % 3 == 0:
                host.starts("cam-1")
            if again == 5:
                host.log = StartLog(host.folder, host.booted.node.tpm)  # the agent was restarted
            said = await rounds(world, host)
            assert (said["standing"], said["findings"]) == ("trusted", [])
        assert (await world.challenge())["starts"] == {"from": 8}
        host.reboot()
        assert (await rounds(world, host, status=422))["code"] == "boot-log-required"
        assert (await world.challenge())["starts"] == {"from": 0}
        assert ids(await rounds(world, host)) == ["rebooted"]
        host.starts("cam-7")
        assert ids(await rounds(world, host)) == []
        assert (await world.get("nodes/node-1"))["standing"] == "trusted"

    run_host(body)


def test_a_node_that_starts_nothing_needs_no_log(run_host):
    """An agent of before knows no log, and sends none."""

    async def body(world, host):
        def without(answer):
            return {name: value for name, value in answer.items() if not name.startswith("starts")}

        await world.enrol(host.booted.node, ticket=await world.ticket(host.booted.node))
        await world.reference()
        challenge = await world.challenge()
        assert (challenge["starts"], 15 in challenge["pcrs"]["sha256"]) == (None, False)
        assert (await rounds(world, host))["standing"] == "trusted"
        await world.reference(2, starts=True)
        for _ in range(2):
            assert (await rounds(world, host, change=without))["standing"] == "trusted"
        host.starts()
        said = await rounds(world, host, change=without)
        assert (said["standing"], ids(said)) == ("untrusted", ["start-log-missing"])

    run_host(body)


def test_a_log_that_stops_coming_is_missing(run_host):
    async def body(world, host):
        await ready(world, host)
        host.starts()
        await rounds(world, host)
        host.starts()
        said = await rounds(
            world, host, change=lambda body: {k: v for k, v in body.items() if not k.startswith("starts")}
        )
        assert (said["standing"], ids(said)) == ("untrusted", ["start-log-missing"])

    run_host(body)


def left_out(host):
    lines = host.data.splitlines(keepends=True)
    return b"".join([lines[0], *lines[2:]])


def reordered(host):
    lines = host.data.splitlines(keepends=True)
    return b"".join([lines[1], lines[0], *lines[2:]])


def another_tenant(host):
    return host.data.replace(b'"tenant":"acme"', b'"tenant":"city"', 1)


@pytest.mark.parametrize("tamper", [left_out, reordered, another_tenant])
def test_a_log_that_is_not_what_was_measured_fells_the_node(run_host, tamper):
    async def body(world, host):
        await ready(world, host)
        for number in range(3):
            host.starts(f"cam-{number}")
        said = await rounds(world, host, data=tamper(host))
        assert (said["standing"], ids(said)) == ("untrusted", ["start-log-mismatch"])
        assert (await rounds(world, host))["findings"] == []  # the log itself is good, and only a boot brings it back
        assert (await world.get("nodes/node-1"))["standing"] == "untrusted"
        host.reboot()
        await rounds(world, host, status=422)
        assert (await rounds(world, host))["standing"] == "trusted"

    run_host(body)


@pytest.mark.parametrize(
    ("forged", "found"),
    [
        (lambda host: host.forges(decision=host.decision(key=generate_private_key(SECP256R1()))), "start-undecided"),
        (lambda host: host.forges(decision=host.decision(node="node-2")), "start-of-another-node"),
        (lambda host: host.forges(node="node-2", decision=host.decision(node="node-2")), "start-of-another-node"),
        (lambda host: host.forges(tenant="city"), "start-not-as-decided"),
        (lambda host: host.forges(instance="cam-2"), "start-not-as-decided"),
        (lambda host: host.forges(image="sha256:" + "cd" * 32), "start-not-as-decided"),
        (lambda host: host.forges(decision=host.decision(exp=1)), "start-decision-expired"),
    ],
)
def test_a_start_that_the_site_did_not_decide_fells_the_node_until_it_boots(run_host, forged, found):
    async def body(world, host):
        assert (await ready(world, host))["standing"] == "trusted"
        host.starts("cam-9")
        assert ids(await rounds(world, host)) == []
        forged(host)
        for _ in range(2):  # it is not told once and forgotten
            said = await rounds(world, host)
            assert (said["standing"], ids(said)) == ("untrusted", [found])
        assert parse_start(host.data.splitlines()[-1]).image in said["findings"][0]["detail"]
        assert said["trust_vector"]["executables"] == 96
        host.reboot()
        await rounds(world, host, status=422)
        assert (await rounds(world, host))["standing"] == "trusted"

    run_host(body)


def test_somebody_else_who_extends_the_pcr_fells_the_node(run_host):
    async def body(world, host):
        await ready(world, host)
        host.starts()
        host.extends(b"a volume that somebody opened")
        said = await rounds(world, host)
        assert (said["standing"], ids(said)) == ("untrusted", ["start-log-mismatch"])
        said = await rounds(world, host, data=host.data + b"a volume that somebody opened\n")
        assert ids(said) == ["start-log-invalid"]

    run_host(body)


def test_an_old_decision_is_refused_whatever_clock_the_node_shows(run_host):
    async def body(world, host):
        await ready(world, host)
        then, decision = int(world.clock().timestamp()), host.decision()
        for _ in range(8):
            world.clock.advance(25)
            await rounds(world, host)
        host.forges(decision=decision, time=then)
        said = await rounds(world, host)
        assert (said["standing"], ids(said)) == ("untrusted", ["start-decision-expired"])

    run_host(body)


def test_an_old_decision_is_refused_after_a_boot_too(run_host):
    async def body(world, host):
        await ready(world, host)
        then, decision = int(world.clock().timestamp()), host.decision()
        world.clock.advance(85)
        await rounds(world, host)
        world.clock.advance(85)
        await rounds(world, host)
        world.clock.advance(85)
        await rounds(world, host)
        host.starts()
        await rounds(world, host)
        host.reboot()
        (host.folder / START_LOG).unlink()
        host.forges(decision=decision, time=then)
        await rounds(world, host, status=422)
        said = await rounds(world, host)
        assert (said["standing"], "start-decision-expired" in ids(said)) == ("untrusted", True)

    run_host(body)


def test_a_verifier_without_keys_of_decisions_believes_no_start(run_host):
    async def body(world, host):
        assert (await ready(world, host))["standing"] == "trusted"
        host.starts()
        assert ids(await rounds(world, host)) == ["start-undecided"]

    run_host(body, decision_jwks=None)


def test_decisions_of_another_issuer_count_where_the_settings_say_so(run_host):
    async def body(world, host):
        await ready(world, host)
        host.starts(iss="https://other.example/platform/v1")
        assert ids(await rounds(world, host)) == []
        host.starts()
        assert ids(await rounds(world, host)) == ["start-undecided"]

    run_host(body, decision_issuer="https://other.example/platform/v1")


def test_a_long_log_comes_in_parts(run_host):
    async def body(world, host):
        await ready(world, host)
        for number in range(4):
            host.starts(f"cam-{number}")
        lines = host.data.splitlines(keepends=True)

        def part(begin, end):
            data = base64.b64encode(b"".join(lines[begin:end])).decode()
            return lambda body: {**body, "starts": data, "starts_from": begin, "starts_more": end < 4}

        for begin in (0, 1):
            said = await rounds(world, host, status=422, change=part(begin, begin + 1))
            assert said["code"] == "runtime-list-continues"
        assert (await world.challenge())["starts"] == {"from": 2}
        assert (await rounds(world, host, status=409, change=part(1, 4)))["code"] == "nonce-superseded"
        said = await rounds(world, host, change=part(2, 4))
        assert (said["standing"], said["findings"]) == ("trusted", [])
        assert (await world.challenge())["starts"] == {"from": 4}

    run_host(body)


@pytest.mark.parametrize("line", [b"", b"x"])
def test_a_part_with_too_many_lines_is_not_looked_at(run_host, line):
    """Of empty lines a body takes 700,000: whoever runs a node could keep the verifier busy with nothing."""

    async def body(world, host):
        await ready(world, host)
        host.starts()
        many = (line + b"\n") * MAX_PART
        for data in (many + b"\n", host.data + many):
            assert (await rounds(world, host, status=422, data=data))["code"] == "start-log-part-too-long"
            assert (await world.get("nodes/node-1"))["standing"] == "trusted"
        fitting = host.data + (line + b"\n") * (MAX_PART - 1)  # what is after the quote waits, and is not read
        said = await rounds(world, host, data=fitting)
        assert (said["standing"], said["findings"]) == ("trusted", [])

    run_host(body)


def test_a_challenge_of_before_another_set_asks_for_something_else(run_host):
    async def body(world, host):
        await world.enrol(host.booted.node, ticket=await world.ticket(host.booted.node))
        await world.reference()
        before = await world.challenge()
        await world.reference(2, starts=True)
        answer = await asyncio.to_thread(host.answer, before)
        assert (await world.post("evidence", answer, status=409))["code"] == "nonce-superseded"
        assert (await rounds(world, host))["standing"] == "trusted"

    run_host(body)


def test_a_node_that_is_enrolled_anew_begins_anew(run_host):
    async def body(world, host):
        await ready(world, host)
        host.starts()
        await rounds(world, host)
        assert (await world.challenge())["starts"] == {"from": 1}
        await world.enrol(host.booted.node, ticket=await world.ticket(host.booted.node))
        assert (await world.challenge())["starts"] == {"from": 0}
        assert (await rounds(world, host))["standing"] == "trusted"

    run_host(body)


def test_a_tpm_that_restarted_begins_its_log_anew(run_host):
    """Its counter of restarts has grown, and its PCRs began anew: the log is judged from its beginning."""

    async def body(world, host):
        await ready(world, host)
        host.starts()
        await rounds(world, host)
        world.clock.advance(30)
        host.booted.hibernate()
        (host.folder / START_LOG).unlink()  # what ran is gone with its memory
        assert (await rounds(world, host, status=422))["code"] == "boot-log-required"
        assert (await world.challenge())["starts"] == {"from": 0}
        said = await rounds(world, host)
        assert (said["standing"], said["findings"]) == ("trusted", [])

    run_host(body)


def test_a_boot_log_that_is_asked_for_anew_judges_no_start_twice(run_host):
    """Its decision is long over, and it was good when the start took place."""

    async def body(world, host):
        await ready(world, host)
        host.starts()
        for _ in range(8):
            assert ids(await rounds(world, host)) == []
            world.clock.advance(25)
        other = {"boot_log": None, "boot_log_sha256": "00" * 32}
        said = await rounds(world, host, status=422, change=lambda body: {**body, **other})
        assert said["code"] == "boot-log-required"
        challenge = await world.challenge()
        assert (challenge["boot_log"], challenge["starts"]) == ("full", {"from": 1})
        said = await rounds(world, host)
        assert (said["standing"], said["findings"]) == ("trusted", [])
        host.reboot()  # and after a boot, its own log is wanted as a whole
        await rounds(world, host, status=422)
        assert (await world.challenge())["starts"] == {"from": 0}
        assert ids(await rounds(world, host)) == ["rebooted"]

    run_host(body)


def test_a_boot_that_the_list_of_what_ran_tells_of_begins_both_lists_anew(run_host):
    """A node that sends its boot log unasked is asked once more, and not once for each of its lists."""

    async def body(world, host):
        host.runs()
        listed = {TOOL[0]: [hashlib.sha256(TOOL[1]).hexdigest()]}
        await ready(world, host, runtime=parse_runtime_policy({"files": listed}))
        host.starts()
        assert ids(await rounds(world, host)) == []
        host.reboot()
        host.runs()
        whole = {"boot_log": base64.b64encode(host.booted.log).decode(), "boot_log_sha256": None}
        said = await rounds(world, host, status=422, change=lambda body: {**body, **whole})
        assert said["code"] == "boot-log-required"
        challenge = await world.challenge()
        assert (challenge["ima"], challenge["starts"]) == ({"from": 0}, {"from": 0})
        assert ids(await rounds(world, host)) == ["rebooted"]

    run_host(body)
