"""What runs on a node after its boot, round after round: from a checkpoint on, after reboots, restarts and new sets."""

import asyncio
import base64
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass

from umec_attest.ima import parse_runtime_policy
from umec_attest.predict import predict
from umec_attest.testing.runtime import RuntimeList, measured, raw_entry, template_data
from umec_attest.testing.runtime import run as measure

FILES = [(f"/usr/bin/tool-{n}", b"content %d" % n) for n in range(5)]
LISTED = {path: [hashlib.sha256(content).hexdigest()] for path, content in FILES}
POLICY = parse_runtime_policy({"files": LISTED})
TOOL = measured("/usr/bin/tool-1", hashlib.sha256(FILES[1][1]).digest())
EVIL = measured("/opt/evil", bytes(range(32)))


@dataclass
class Running:
    """A node whose kernel measures what runs."""

    booted: object
    ran: RuntimeList

    def runs(self, entry):
        measure(self.booted.tpm, self.ran, entry)

    def reboot(self):
        self.booted.reboot()
        self.start()

    def start(self):
        self.ran = RuntimeList()
        for entry in RuntimeList.of(predict(self.booted.owner.image).pcrs | {8: bytes(32)}, FILES).entries:
            self.runs(entry)

    def answer(self, challenge):
        return self.booted.node.evidence(challenge, boot_log=self.booted.log, runtime=self.ran)


@contextmanager
def running(world, **options):
    with world.tpms.booted(**options) as booted:
        node = Running(booted, RuntimeList())
        node.start()
        yield node


async def ready(world, node, policy=POLICY):
    await world.enrol(node.booted.node, ticket=await world.ticket(node.booted.node))
    await world.reference(runtime=policy)
    return await rounds(world, node)


async def rounds(world, node, *, status=200, change=None):
    """One round; `change` changes the answer."""
    challenge = await world.challenge(node.booted.node.name)
    answer = await asyncio.to_thread(node.answer, challenge)
    return await world.post("evidence", answer if change is None else change(answer), status=status)


def ids(said):
    return [finding["id"] for finding in said["findings"]]


def test_a_node_that_runs_what_is_listed_is_trusted_and_sends_only_what_is_new(run):
    async def body(world):
        with running(world) as node:
            assert (await ready(world, node))["standing"] == "trusted"
            assert (await world.challenge())["ima"] == {"from": 6}
            node.runs(TOOL)
            said = await rounds(world, node)
            assert (said["standing"], said["findings"]) == ("trusted", [])
            challenge = await world.challenge()
            assert challenge["ima"] == {"from": 7}
            assert challenge["pcrs"] == {"sha256": [*range(13), 14]}
            answer = node.answer(challenge)
            assert (answer["ima"], answer["ima_from"]) == ("", 7)
            said = await world.post("evidence", answer)
            assert (said["trust_vector"]["executables"], said["trust_vector"]["file-system"]) == (2, 2)

    run(body)


def test_an_unknown_executable_fells_the_node_until_it_boots(run):
    async def body(world):
        with running(world) as node:
            await ready(world, node)
            node.runs(EVIL)
            said = await rounds(world, node)
            assert (said["standing"], ids(said)) == ("untrusted", ["ima-file-unknown"])
            assert "/opt/evil" in said["findings"][0]["detail"]
            assert said["findings"][0]["found"] == f"sha256:{bytes(range(32)).hex()}"
            assert (await world.challenge())["ima"] == {"from": 7}
            node.runs(TOOL)
            again = await rounds(world, node)
            assert (again["standing"], again["findings"]) == ("untrusted", said["findings"])
            shown = await world.get("nodes/node-1/explain")
            assert "/opt/evil" in str(shown)
            node.reboot()
            assert (await rounds(world, node, status=422))["code"] == "boot-log-required"
            said = await rounds(world, node)
            assert (said["standing"], ids(said)) == ("trusted", ["rebooted"])

    run(body)


def test_a_list_that_hides_what_ran(run):
    async def body(world):
        with running(world) as node:
            await ready(world, node)
            node.runs(EVIL)
            node.ran.entries.pop()
            said = await rounds(world, node)
            assert (said["standing"], ids(said)) == ("untrusted", ["ima-replay-mismatch"])

    run(body)


def test_a_list_in_parts(run):
    """Each part has a quote of its own; nothing is judged before the last one is here."""

    async def body(world):
        with running(world) as node:
            await world.enrol(node.booted.node, ticket=await world.ticket(node.booted.node))
            await world.reference(runtime=POLICY)
            node.runs(EVIL)

            def cut(sent):
                start = sent["ima_from"]
                part = b"".join(node.ran.entries[start : start + 3])
                return sent | {"ima": base64.b64encode(part).decode(), "ima_more": True}

            for start in (0, 3):
                assert (await world.challenge())["ima"] == {"from": start}
                assert (await rounds(world, node, status=422, change=cut))["code"] == "runtime-list-continues"
            assert (await world.get("nodes/node-1"))["standing"] == "pending"
            said = await rounds(world, node)
            assert (said["standing"], ids(said)) == ("untrusted", ["ima-file-unknown"])
            assert ("evidence.submit", "refused", "runtime-list-continues") not in await world.audited()

    run(body)


def test_a_node_without_a_list(run):
    async def body(world):
        with running(world) as node:
            await ready(world, node)
            without = {"ima", "ima_from"}
            said = await rounds(world, node, change=lambda sent: {k: v for k, v in sent.items() if k not in without})
            assert (said["standing"], ids(said)) == ("untrusted", ["ima-missing"])

    run(body)


def test_a_list_from_elsewhere_than_asked(run):
    async def body(world):
        with running(world) as node:
            await ready(world, node)
            for start in (0, 5, 7, None):
                said = await rounds(
                    world, node, status=409, change=lambda sent, start=start: sent | {"ima_from": start}
                )
                assert said["code"] == "nonce-superseded"
            assert (await rounds(world, node))["standing"] == "trusted"

    run(body)


def test_a_reboot_is_no_alarm(run):
    """With and without the boot log coming along unasked."""

    async def body(world):
        with running(world) as node:
            await ready(world, node)
            node.reboot()
            assert (await rounds(world, node, status=422))["code"] == "boot-log-required"
            assert (await world.challenge())["ima"] == {"from": 0}
            said = await rounds(world, node)
            assert (said["standing"], ids(said)) == ("trusted", ["rebooted"])
            node.reboot()
            whole = await world.challenge()
            answer = await asyncio.to_thread(node.answer, whole | {"boot_log": "full"})
            assert answer["ima_from"] == 6
            assert (await world.post("evidence", answer, status=422))["code"] == "boot-log-required"
            assert (await rounds(world, node))["standing"] == "trusted"

    run(body)


def test_another_policy_judges_what_ran_before_it(run):
    """What a newer set allows no longer is found in the boot that goes on."""

    async def body(world):
        with running(world) as node:
            await ready(world, node)
            await world.reference(2, runtime=parse_runtime_policy({"files": LISTED | {"/usr/bin/new": ["ab" * 32]}}))
            assert (await world.challenge())["ima"] == {"from": 0}
            assert (await rounds(world, node))["standing"] == "trusted"
            fewer = {path: digests for path, digests in LISTED.items() if path != "/usr/bin/tool-3"}
            await world.reference(3, runtime=parse_runtime_policy({"files": fewer}))
            said = await rounds(world, node)
            assert (said["standing"], ids(said)) == ("untrusted", ["ima-file-unknown"])

    run(body)


def test_a_set_that_says_nothing_of_files_asks_for_no_list(run):
    async def body(world):
        with running(world) as node:
            await world.enrol(node.booted.node, ticket=await world.ticket(node.booted.node))
            await world.reference()
            assert (await world.challenge())["ima"] is None
            assert (await rounds(world, node))["standing"] == "trusted"
            before = await world.challenge()
            await world.reference(2, runtime=POLICY)
            answer = await asyncio.to_thread(node.answer, before)
            assert (await world.post("evidence", answer, status=409))["code"] == "nonce-superseded"
            assert (await rounds(world, node))["standing"] == "trusted"
            assert (await world.challenge())["ima"] == {"from": 6}
            await world.reference(3)
            assert (await rounds(world, node))["standing"] == "trusted"
            await world.reference(4, runtime=POLICY)
            assert (await world.challenge())["ima"] == {"from": 0}

    run(body)


def test_a_verifier_that_starts_again_goes_on_where_it_was(reopen, clock):
    async def body():
        async with reopen(clock) as world:
            with running(world) as node:
                await ready(world, node)
                async with reopen(clock) as again:
                    assert (await again.challenge())["ima"] == {"from": 6}
                    node.runs(TOOL)
                    assert (await rounds(again, node))["standing"] == "trusted"

    asyncio.run(body())


def test_a_node_that_is_enrolled_anew_begins_anew(run):
    async def body(world):
        with running(world) as node:
            await ready(world, node)
            await world.enrol(node.booted.node, ticket=await world.ticket(node.booted.node))
            assert (await world.challenge())["ima"] == {"from": 0}
            assert (await rounds(world, node))["standing"] == "trusted"

    run(body)


def test_a_tolerated_violation_degrades_for_the_whole_boot(run):
    async def body(world):
        with running(world) as node:
            await ready(world, node, parse_runtime_policy({"files": LISTED, "violations": "warn"}))
            node.runs(raw_entry(template_data(b"sha256:\0" + bytes(32), b"/var/log/x\0"), template_hash=bytes(20)))
            for _ in range(3):
                said = await rounds(world, node)
                assert (said["standing"], ids(said)) == ("degraded", ["ima-violation-tolerated"])
            node.reboot()
            await rounds(world, node, status=422)
            assert (await rounds(world, node))["standing"] == "trusted"

    run(body)
