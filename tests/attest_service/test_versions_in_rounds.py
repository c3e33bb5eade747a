"""Two versions of one image beside each other: in rounds, over time, after a rollback, and for an operator."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from umec_attest.ima import RuntimePolicy, parse_runtime_policy
from umec_attest.reference import Grace, sign_reference_set
from umec_attest.service import AttestService
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.references import filed as reading
from umec_attest.testing.firmware import measurements
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import IMAGE, FleetVerifier
from umec_attest.testing.image import load_image, make_image
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.errors import UmecError
from umec_core.jose import base64url_decode
from umec_core.testing import temporary_postgresql

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
INIT = ("/usr/sbin/init", b"init")
NEWER_TOOL = ("/usr/bin/tool", b"of version 2")
KEYS = make_keys(1)
PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)

Said = dict[str, Any]


def policy(*programs: tuple[str, bytes]) -> RuntimePolicy:
    return parse_runtime_policy({"files": {path: [hashlib.sha256(text).hexdigest()] for path, text in programs}})


@pytest.fixture(scope="module")
def boots(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Boot]:
    """Versions 1 to 3 of an image, and two boots that are neither: PCR 4 of one version beside PCR 11 of the other."""
    folder = tmp_path_factory.mktemp("images")
    measured = {n: list(measurements(load_image(make_image(folder / str(n), kernel=b"%d" % n)))) for n in (1, 2, 3)}
    made: dict[Any, Boot] = {n: Boot.measuring(events) for n, events in measured.items()}
    for first, second in ((1, 2), (2, 1)):
        mixed = [event for event in measured[first] if event.pcr != 11]
        mixed += [event for event in measured[second] if event.pcr == 11]
        made[first, second] = Boot.measuring(mixed)
    return made


class Site:
    """A verifier, and one node of it, which boots whatever a test wants."""

    def __init__(
        self, folder: Path, boots: dict[Any, Boot], clock: Any, *, database: str | None = None, **node: Any
    ) -> None:
        self.boots = boots
        self.clock = clock
        self.folder = folder
        self.verifier = FleetVerifier(folder, clock=clock, database=database)
        self.node = SimulatedNode("node-1", KEYS, boots[1], **node)
        self.service: AttestService
        self.applications: dict[AttestService, Any] = {}

    def envelope(
        self, version: int, *, since: int | None = None, grace: timedelta = DAY, of: int | None = None, **changes: Any
    ) -> bytes:
        """Sign version `version`, with a grace for those from `since` on."""
        now = self.clock()
        boot = self.boots[version if of is None else of]
        more = (8,) if changes.get("runtime") else ()
        said = {
            "name": IMAGE,
            "subject_sha256": "cd" * 32,
            "version": version,
            "issued": now,
            "expires": now + timedelta(days=365),
            "pcrs": {HashAlgorithm.SHA256: {pcr: [boot.pcrs[pcr]] for pcr in (*PCRS, *more)}},
            "ignored": {},
            "key": self.verifier._signer,
            "grace": None if since is None else Grace(since, now + grace),
        }
        return sign_reference_set(**(said | changes))

    async def call(self, method: str, path: str, *, status: int = 200, **options: Any) -> Said:
        if self.service not in self.applications:
            self.applications[self.service] = self.verifier.application(self.service)
        transport = httpx.ASGITransport(self.applications[self.service])
        async with httpx.AsyncClient(transport=transport, base_url="https://localhost:8443") as client:
            headers = self.verifier.token("attest:admin", "attest:read")
            answer = await client.request(method, f"/attest/v1/{path}", headers=headers, **options)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def publish(self, envelope: bytes, *, grace: int | None = None, status: int = 201) -> Said:
        query = {} if grace is None else {"params": {"grace_seconds": grace}}
        return await self.call("POST", "reference-sets", content=envelope, status=status, **query)

    async def answer(self) -> EvidenceRequest:
        """Take a challenge and answer it, and do not hand it in yet."""
        return EvidenceRequest.model_validate(self.node.evidence(await self.service.rounds.challenge("node-1")))

    async def hand_in(self, answer: EvidenceRequest) -> Said:
        return await self.service.rounds.submit(answer, address="192.0.2.1")

    async def round(self) -> tuple[str, list[str]]:
        """A round, and another one where the first says that more is to be sent: standing, and ids of the findings."""
        for _ in range(3):
            try:
                said = await self.hand_in(await self.answer())
            except UmecError as error:
                if error.code != "boot-log-required":
                    raise
                continue
            return said["standing"], [finding["id"] for finding in said["findings"]]
        pytest.fail("it never ends")

    async def boot(self, which: Any) -> tuple[str, list[str]]:
        self.node.reboot(self.boots[which])
        return await self.round()

    async def stand_on(self, which: Any) -> None:
        """Boot a version, and stand on it for as long as it takes to become the floor."""
        assert (await self.boot(which))[0] == "trusted"
        self.clock.advance(3600)
        assert (await self.round())[0] == "trusted"

    async def shown(self) -> Said:
        return await self.call("GET", "nodes/node-1")

    async def audited(self) -> list[tuple[str, str | None, Said]]:
        log = await self.verifier.audit_log(self.service)
        return [(entry["action"], entry.get("code"), entry["facts"]) for entry in log["entries"]]

    async def allow(self, version: Any, *, status: int = 200) -> Said:
        return await self.call(
            "POST", "nodes/node-1/allow-version", json={"version": version, "reason": "it failed"}, status=status
        )


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory, boots: dict[Any, Boot]) -> Path:
    """The folder of a verifier with a node, which each test copies."""
    folder = tmp_path_factory.mktemp("site") / "verifier"
    verifier = FleetVerifier(folder)
    asyncio.run(verifier.enrol([SimulatedNode("node-1", KEYS, boots[1])]))
    return folder


@pytest.fixture
def make_site(tmp_path: Path, enrolled: Path, boots: dict[Any, Boot], clock: Any) -> Callable[..., Site]:
    def make(**node: Any) -> Site:
        shutil.copytree(enrolled, tmp_path / "verifier")
        return Site(tmp_path / "verifier", boots, clock, **node)

    return make


@pytest.fixture
def on_site(make_site: Any) -> Callable[..., None]:
    """Run a body on a site whose node stands on version 1."""

    def runner(body: Callable[[Site], Awaitable[None]], *, first: Said | None = None, **node: Any) -> None:
        async def opened() -> None:
            site = make_site(**node)
            if "database" in node:  # another one than was copied
                await site.verifier.enrol([site.node])
            site.service = await site.verifier.open()
            try:
                await site.publish(site.envelope(1, **(first or {})))
                assert await site.round() == ("trusted", [])
                await body(site)
            finally:
                await site.service.close()

        asyncio.run(opened())

    return runner


# --- one version as a whole -------------------------------------------------------------------------------------------


def test_two_versions_hold_as_a_whole_and_no_mixture_does(on_site: Any) -> None:
    async def body(site: Site) -> None:
        said = await site.publish(site.envelope(2, since=1))
        assert [each["version"] for each in said["beside"]] == [1]
        assert await site.round() == ("trusted", [])
        assert (await site.shown())["version"] == 1
        assert await site.boot(2) == ("trusted", ["rebooted"])
        assert (await site.shown())["version"] == 2
        for mixed in ((1, 2), (2, 1)):
            standing, findings = await site.boot(mixed)
            assert (standing, set(findings)) == ("untrusted", {"rebooted", "pcr-unexpected"})
            assert (await site.shown())["version"] == 2
            assert (await site.boot(2))[0] == "trusted"

    on_site(body)


def test_what_may_run_is_what_the_booted_version_says(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1, runtime=policy(INIT, NEWER_TOOL)))
        assert await site.round() == ("trusted", [])
        site.node.start(*NEWER_TOOL)  # which version 2 lists
        assert await site.round() == ("untrusted", ["ima-file-unknown"])
        assert (await site.boot(2))[0] == "trusted"
        site.node.start(*NEWER_TOOL)
        assert await site.round() == ("trusted", [])

    on_site(body, first={"runtime": policy(INIT)}, programs=[INIT])


def test_a_list_that_is_judged_by_one_version_is_not_taken_on_for_another(on_site: Any) -> None:
    """The same boot is of the newer version from when it is published on: what ran before is judged by it, too."""

    async def body(site: Site) -> None:
        site.node.start(*NEWER_TOOL)
        assert await site.round() == ("trusted", [])
        said = await site.publish(site.envelope(2, since=1, of=1, runtime=policy(INIT)))
        assert [each["version"] for each in said["beside"]] == [1]
        assert await site.round() == ("untrusted", ["ima-file-unknown"])

    on_site(body, first={"runtime": policy(INIT, NEWER_TOOL)}, programs=[INIT])


def test_the_result_names_the_version_that_was_booted(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1))
        for version in (1, 2):
            await site.boot(version)
            last = (await site.call("GET", "nodes/node-1/explain"))["last_round"]
            assert last["reference"]["version"] == version
            until = {1: "2034-11-23T12:00:00.000000Z", 2: None}[version]
            assert last["reference"].get("until") == until
            result = (await site.hand_in(await site.answer()))["ear"]
            claims = json.loads(base64url_decode(result.split(".")[1]))["umec"]
            assert (claims["reference_version"], claims["reference_sha256"]) == (version, last["reference"]["sha256"])

    on_site(body)


# --- until when -------------------------------------------------------------------------------------------------------


def test_the_older_version_ends_with_the_grace_without_a_restart(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1))
        site.clock.advance(DAY.total_seconds() - 1)
        assert await site.round() == ("trusted", [])
        before = await site.answer()
        site.clock.advance(1)
        said = await site.hand_in(before)  # asked in the grace, and answered after it
        assert said["standing"] == "untrusted"
        assert {finding["id"] for finding in said["findings"]} == {"pcr-unexpected", "version-outdated"}
        outdated = said["findings"][-1]
        assert (outdated["expected"], outdated["found"]) == ("version 2", "version 1")
        assert outdated["detail"].endswith("counted until 2034-11-23T12:00:00Z")
        standing, findings = await site.boot(1)
        assert standing == "untrusted"
        assert "version-outdated" in findings
        assert (await site.boot(2))[0] == "trusted"

    on_site(body)


def test_without_a_grace_a_version_is_replaced_at_once(on_site: Any) -> None:
    async def body(site: Site) -> None:
        assert (await site.publish(site.envelope(2)))["beside"] == []
        said = await site.hand_in(await site.answer())
        assert said["standing"] == "untrusted"
        assert said["findings"][-1]["id"] == "version-outdated"
        assert said["findings"][-1]["detail"].endswith("which was replaced at once")
        assert "version-outdated" not in (await site.boot(3))[1]  # a version that nobody has published

    on_site(body)


def test_an_answer_is_judged_anew_where_a_newer_version_came_meanwhile(on_site: Any) -> None:
    async def body(site: Site) -> None:
        before = await site.answer()
        await site.publish(site.envelope(2))
        assert (await site.hand_in(before))["standing"] == "untrusted"

    on_site(body)


def test_the_grace_of_another_image_has_no_effect(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2))
        for version in (1, 2):
            await site.publish(site.envelope(version, since=1 if version > 1 else None, name="another-image"))
        assert (await site.round())[0] == "untrusted"
        assert (await site.boot(2))[0] == "trusted"

    on_site(body)


def test_a_grace_that_nobody_signed_or_is_for_nobody_is_refused(on_site: Any) -> None:
    async def body(site: Site) -> None:
        other = generate_private_key(SECP256R1())
        day = int(DAY.total_seconds())
        for envelope, grace, code in (
            (site.envelope(2, since=1, key=other), None, "reference-signature"),
            (site.envelope(2), 1, "reference-grace"),
            (site.envelope(2, since=1), day + 1, "reference-grace"),
            (site.envelope(3, since=2), None, "reference-grace"),  # version 1 is what nodes run
            (site.envelope(2, since=1, runtime=policy(INIT)), None, "reference-grace"),
        ):
            assert (await site.publish(envelope, grace=grace, status=422))["code"] == code
            assert (await site.round())[0] == "trusted"
        late = site.envelope(2, since=1)
        site.clock.advance(day)
        assert (await site.publish(late, status=422))["code"] == "reference-grace"
        refused = [code for action, code, _ in await site.audited() if action == "reference.install" and code]
        assert refused == ["reference-signature", *["reference-grace"] * 5]
        for seconds in (-1, 30 * day + 1):
            await site.publish(late, grace=seconds, status=400)
        assert (await site.round())[0] == "trusted"
        assert (await site.publish(late, grace=0))["beside"] == []  # said aloud: replace it at once
        assert (await site.round())[0] == "untrusted"

    on_site(body)


def test_a_refused_grace_says_what_to_do(on_site: Any) -> None:
    async def body(site: Site) -> None:
        for seconds, signed, detail, advice in (
            (0, site.envelope(3, since=2), "for versions from 2 on, and version 1 is older", "--grace-from 1"),
            (0, site.envelope(2, since=1, runtime=policy(INIT)), "what may run", "--grace 0"),
            (0, site.envelope(2, since=1, starts=True), "log of starts", "--grace 0"),
            (3600, site.envelope(2, since=1, grace=HOUR), "ended at 2034-11-22T13:00:00Z", "sign it anew"),
            (23 * 3600, site.envelope(2, since=1, grace=2 * DAY), "itself ended at 2034-11-23T12:00:00Z", "--grace 0"),
        ):
            site.clock.advance(seconds)
            said = await site.publish(signed, status=422)
            assert (said["code"], detail in said["detail"], advice in said["advice"]) == ("reference-grace", True, True)
        assert (await site.publish(signed, grace=0))["beside"] == []

    on_site(body, first={"expires": datetime(2034, 11, 23, 12, tzinfo=UTC)})


def test_a_grace_where_no_older_version_can_be_read_is_refused(make_site: Any) -> None:
    """It was published too early, or the older one's signer is not pinned any more: its nodes would fall."""

    async def body() -> None:
        site = make_site()
        site.service = await site.verifier.open()
        said = await site.publish(site.envelope(2, since=1), status=422)
        assert (said["code"], "first" in said["advice"]) == ("reference-grace", True)
        await site.publish(site.envelope(1))
        await site.service.close()
        change_row(site, "sha256 = 'x' || sha256")
        site.service = await site.verifier.open()
        assert (await site.publish(site.envelope(2, since=1), status=422))["code"] == "reference-grace"
        await site.service.close()
        change_row(site, "sha256 = substr(sha256, 2)")
        site.service = await site.verifier.open()
        assert [each["version"] for each in (await site.publish(site.envelope(2, since=1)))["beside"]] == [1]
        await site.service.close()

    asyncio.run(body())


def test_an_operator_shortens_a_grace(on_site: Any) -> None:
    async def body(site: Site) -> None:
        envelope = site.envelope(2, since=1)
        assert (await site.publish(envelope, grace=7200))["beside"] == [
            {"version": 1, "until": "2034-11-22T14:00:00.000000Z"}
        ]
        before = await site.answer()
        for longer in (None, 9000):  # once more: where nothing is said of the grace it stays, and none is lengthened
            [beside] = (await site.publish(envelope, grace=longer))["beside"]
            assert beside["until"] == "2034-11-22T14:00:00.000000Z"
        assert (await site.hand_in(before))["standing"] == "trusted"
        site.clock.advance(600)
        await site.publish(envelope, grace=600)
        site.clock.advance(599)
        assert await site.round() == ("trusted", [])
        await site.publish(envelope, grace=0)
        assert (await site.round())[0] == "untrusted"
        told = [
            (action, facts.get("grace_until")) for action, _, facts in await site.audited() if "reference." in action
        ]
        assert told == [
            ("reference.install", None),
            ("reference.install", "2034-11-22T14:00:00.000000Z"),
            ("reference.shorten", "2034-11-22T12:20:00.000000Z"),
            ("reference.shorten", "2034-11-22T12:19:59.000000Z"),
        ]

    on_site(body)


def test_a_signed_grace_can_be_ended_that_was_not_shortened_before(on_site: Any) -> None:
    async def body(site: Site) -> None:
        envelope = site.envelope(2, since=1)
        await site.publish(envelope)
        await site.publish(envelope, grace=0)
        assert (await site.round())[0] == "untrusted"

    on_site(body)


def test_what_is_under_way_when_a_grace_is_shortened_is_judged_anew(on_site: Any, hand_in: Any) -> None:
    async def body(site: Site) -> None:
        envelope = site.envelope(2, since=1)
        await site.publish(envelope)
        answer = await site.answer()
        store = site.service._store
        holds, released = asyncio.Event(), asyncio.Event()

        async def hold(_: Any) -> None:
            holds.set()
            await released.wait()

        holding = asyncio.create_task(store.write(hold))
        await holds.wait()
        shortening = asyncio.create_task(site.publish(envelope, grace=0))
        await hand_in(store, shortening)
        submitting = asyncio.create_task(site.hand_in(answer))
        await hand_in(store, submitting)
        released.set()
        await asyncio.gather(holding, shortening)
        with pytest.raises(UmecError) as caught:
            await submitting
        assert caught.value.code == "evidence-stale"
        assert (await site.round())[0] == "untrusted"

    on_site(body)


def test_who_writes_into_the_database_undoes_what_an_operator_shortened_and_not_what_is_signed(
    make_site: Any, clock: Any
) -> None:
    """The operator's word is a row, and no more: what must not count is ended by a newer set without a grace."""

    async def body() -> None:
        site = make_site()
        site.service = await site.verifier.open()
        await site.publish(site.envelope(1))
        envelope = site.envelope(2, since=1)
        await site.publish(envelope)
        await site.publish(envelope, grace=0)
        await site.service.close()
        change_row(site, "shortened = NULL WHERE version = 2")
        site.service = await site.verifier.open()
        assert await site.round() == ("trusted", [])
        clock.advance(DAY.total_seconds())
        assert (await site.round())[0] == "untrusted"
        await site.service.close()

    asyncio.run(body())


def change_row(site: Site, said: str) -> None:
    with sqlite3.connect(site.folder / "attest.db") as database:
        database.execute(f"UPDATE reference_set SET {said}")  # noqa: S608 - of this test
    database.close()


@pytest.mark.parametrize(
    ("said", "older"),
    [
        ("image = image", "trusted"),
        ("shortened = 9999999999999999 WHERE version = 2", "untrusted"),
        ("shortened = NULL WHERE version = 2", "untrusted"),
        ("installed_at = 9999999999999999", "untrusted"),
        ("sha256 = 'ab' WHERE version = 1", "untrusted"),
        ("envelope = x'00' WHERE version = 1", "untrusted"),
    ],
)
def test_who_writes_into_the_database_prolongs_no_grace(make_site: Any, clock: Any, said: str, older: str) -> None:
    async def body() -> None:
        site = make_site()
        site.service = await site.verifier.open()
        await site.publish(site.envelope(1))
        await site.publish(site.envelope(2, since=1))
        assert await site.round() == ("trusted", [])
        if "WHERE version = 2" in said or "installed" in said:
            clock.advance(DAY.total_seconds())
        await site.service.close()
        change_row(site, said)
        site.service = await site.verifier.open()
        assert (await site.round())[0] == older
        await site.service.close()

    asyncio.run(body())


def test_versions_in_between_that_are_not_to_be_read_let_none_before_them_count(make_site: Any) -> None:
    async def body() -> None:
        site = make_site()
        site.service = await site.verifier.open()
        await site.publish(site.envelope(1))
        await site.publish(site.envelope(2, since=1))
        await site.publish(site.envelope(3, since=1))
        assert await site.round() == ("trusted", [])
        await site.service.close()
        change_row(site, "sha256 = 'ab' WHERE version = 2")
        site.service = await site.verifier.open()
        assert (await site.round())[0] == "untrusted"
        assert (await site.boot(3))[0] == "trusted"
        await site.service.close()

    asyncio.run(body())


# --- a node that goes back --------------------------------------------------------------------------------------------


def test_a_trial_that_loses_its_power_is_no_rollback(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1, grace=10 * DAY))
        await site.stand_on(1)
        for _ in range(3):  # trusted on trial, and back before it was confirmed
            assert await site.boot(2) == ("trusted", ["rebooted"])
            site.clock.advance(3599)
            assert await site.round() == ("trusted", [])
            assert await site.boot(1) == ("trusted", ["rebooted"])
            site.clock.advance(3600)

    on_site(body)


def test_a_node_that_stood_on_a_newer_version_does_not_go_back(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1, grace=10 * DAY))
        await site.stand_on(2)
        assert (await site.shown())["version_floor"] == 2
        said = await site.boot(1)
        assert said == ("untrusted", ["rebooted", "version-rollback"])
        last = (await site.call("GET", "nodes/node-1/explain"))["last_round"]["findings"][-1]
        assert (last["expected"], last["found"]) == ("version 2 or newer", "version 1")
        assert last["detail"] == f"the node booted version 1 of {IMAGE}, after it had stood on version 2"
        assert await site.round() == ("untrusted", ["version-rollback"])
        assert (await site.boot(2))[0] == "trusted"
        assert (await site.shown())["version_floor"] == 2

    on_site(body)


def test_an_operator_lets_a_node_go_back_and_it_is_written_down(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1, grace=10 * DAY))
        assert (await site.allow(1, status=409))["code"] == "version-not-barred"
        await site.stand_on(2)
        assert (await site.boot(1))[0] == "untrusted"
        for wrong in (0, "x", None):
            assert (await site.allow(wrong, status=400))["code"] == "invalid-input"
        assert (await site.allow(2, status=409))["code"] == "version-not-barred"
        shown = await site.allow(1)
        assert shown["version_floor"] == 1
        assert await site.round() == ("untrusted", [])  # its evidence is good, and a fall wants a new boot
        assert (await site.boot(1)) == ("trusted", ["rebooted"])
        with_facts = {action: facts for action, _, facts in await site.audited()}
        assert with_facts["node.allow-version"] == {"from": 2, "to": 1, "image": IMAGE, "reason": "it failed"}
        await site.stand_on(2)
        assert (await site.boot(1))[0] == "untrusted"

    on_site(body)


def test_what_is_under_way_when_a_node_is_allowed_to_go_back_fells_nobody(on_site: Any, hand_in: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1, grace=10 * DAY))
        await site.stand_on(2)
        site.node.reboot(site.boots[1])
        with pytest.raises(UmecError, match="boot log"):
            await site.hand_in(await site.answer())
        answer = await site.answer()
        store = site.service._store
        holds, released = asyncio.Event(), asyncio.Event()

        async def hold(_: Any) -> None:
            holds.set()
            await released.wait()

        holding = asyncio.create_task(store.write(hold))
        await holds.wait()
        allowing = asyncio.create_task(site.allow(1))
        await hand_in(store, allowing)
        submitting = asyncio.create_task(site.hand_in(answer))
        await hand_in(store, submitting)
        released.set()
        await asyncio.gather(holding, allowing)
        with pytest.raises(UmecError) as caught:
            await submitting
        assert caught.value.code == "evidence-stale"
        assert (await site.round())[0] == "trusted"

    on_site(body)


def test_a_node_that_falls_for_something_else_keeps_its_floor(on_site: Any) -> None:
    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1, grace=10 * DAY))
        await site.stand_on(2)
        assert (await site.boot((1, 2)))[0] == "untrusted"
        assert (await site.shown())["version_floor"] == 2
        assert (await site.boot(1))[1] == ["rebooted", "version-rollback"]

    on_site(body)


# --- what operators see -----------------------------------------------------------------------------------------------


def test_which_versions_count_is_to_be_seen(on_site: Any) -> None:
    async def listed(site: Site) -> list[tuple[int, str, str | None]]:
        sets = (await site.call("GET", "reference-sets"))["reference_sets"]
        return [(each["version"], each["counts"], each["until"]) for each in sets if each["image"] == IMAGE]

    async def body(site: Site) -> None:
        assert await listed(site) == [(1, "newest", None)]
        await site.publish(site.envelope(2, since=1))
        end = "2034-11-23T12:00:00.000000Z"
        assert await listed(site) == [(1, "beside", end), (2, "newest", None)]
        site.clock.advance(DAY.total_seconds())
        assert await listed(site) == [(1, "no", end), (2, "newest", None)]
        await site.publish(site.envelope(3))
        assert await listed(site) == [(1, "no", None), (2, "no", None), (3, "newest", None)]
        site.clock.advance(366 * DAY.total_seconds())
        assert await listed(site) == [(1, "no", None), (2, "no", None), (3, "newest", None)]
        nodes = (await site.call("GET", "nodes"))["nodes"]
        assert [(node["node"], node["version"], node["version_floor"]) for node in nodes] == [("node-1", 1, 0)]

    on_site(body)


def test_a_node_that_never_stood_is_on_no_version(make_site: Any) -> None:
    async def body() -> None:
        site = make_site()
        site.service = await site.verifier.open()
        shown = await site.shown()
        assert (shown["version"], shown["version_floor"]) == (None, 0)
        assert (await site.allow(1, status=409))["code"] == "version-not-barred"
        await site.service.close()

    asyncio.run(body())


def test_a_node_of_another_image_has_no_floor(on_site: Any) -> None:
    """Versions of two images have nothing to do with each other."""

    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, since=1, grace=10 * DAY))
        await site.stand_on(2)
        with sqlite3.connect(site.folder / "attest.db") as database:
            database.execute("UPDATE node SET image = 'another-image'")
        database.close()
        shown = await site.shown()
        assert (shown["version"], shown["version_floor"]) == (None, 0)
        assert (await site.allow(1, status=409))["code"] == "version-not-barred"
        await site.publish(site.envelope(1, name="another-image"))
        assert await site.boot(1) == ("trusted", ["rebooted"])
        assert (await site.shown())["version"] == 1

    on_site(body)


# --- several verifiers, and what it costs -----------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_verifiers_on_one_database_agree(on_site: Any, database: str) -> None:
    async def body(site: Site) -> None:
        first, second = site.service, await site.verifier.open()
        envelope = site.envelope(2, since=1, grace=10 * DAY)
        try:
            await site.publish(envelope)
            for service in (second, first, second):
                site.service = service
                assert await site.round() == ("trusted", [])
            await site.stand_on(2)
            site.service = first
            assert (await site.boot(1))[1] == ["rebooted", "version-rollback"]
            site.service = second
            await site.allow(1)
            await site.publish(envelope, grace=0)
            site.service = first
            assert "version-outdated" in (await site.boot(1))[1]
        finally:
            site.service = first
            await second.close()

    if database == "sqlite":
        on_site(body)
        return
    with temporary_postgresql() as url:
        on_site(body, database=url)


def test_older_versions_are_read_once_and_only_in_a_grace(on_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    original = reading.read_reference_set

    def counted(envelope: bytes, **given: Any) -> Any:
        read.append(envelope)
        return original(envelope, **given)

    monkeypatch.setattr(reading, "read_reference_set", counted)

    async def body(site: Site) -> None:
        read.clear()
        await site.publish(site.envelope(2, of=1))
        for _ in range(3):
            assert await site.round() == ("trusted", [])
        assert len(read) == 1
        read.clear()
        await site.publish(site.envelope(3, since=1))
        for _ in range(3):
            assert await site.round() == ("trusted", [])
        newest = site.envelope(4, since=1, of=3)
        await site.publish(newest)
        await site.publish(newest, grace=3600)
        assert await site.round() == ("trusted", [])
        assert len(read) == len(set(read)) == 3  # 1, which had counted no more, 3 and 4: whichever replaces which

    on_site(body)


def test_older_versions_are_read_once_for_all_that_ask_at_one_moment(
    on_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    fetched: list[str] = []
    original, before = reading.read_reference_set, reading.FiledReferences.before

    def counted(envelope: bytes, **given: Any) -> Any:
        read.append(envelope)
        return original(envelope, **given)

    async def told(filed: reading.FiledReferences, image: str, version: int) -> Any:
        fetched.append(image)
        return await before(filed, image, version)

    monkeypatch.setattr(reading, "read_reference_set", counted)
    monkeypatch.setattr(reading.FiledReferences, "before", told)

    async def body(site: Site) -> None:
        await site.publish(site.envelope(2, of=1))
        await site.publish(site.envelope(3, since=1))
        fresh = await site.verifier.open()
        try:
            read.clear()
            fetched.clear()
            await asyncio.gather(*(fresh.rounds.challenge("node-1") for _ in range(5)))
            assert (len(read), len(fetched)) == (3, 1)  # the newest one, and the two before it
        finally:
            await fresh.close()

    on_site(body)
