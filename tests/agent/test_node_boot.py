"""What a node image starts: the program itself, with a TPM, against a platform that is there or not."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from umec_attest.agent.boot import Site, check_clock, check_state, persist, read_site
from umec_attest.agent.enrol import enrol
from umec_attest.agent.errors import AgentStateInvalid, ClockBehind, StateOfAnotherSite
from umec_attest.agent.state import load_state, save_state
from umec_attest.service.errors import NodeOtherEk, TicketRequired
from umec_core.errors import UmecError
from umec_core.remote import RemoteRefused, RemoteUnavailable

EVIL = {"url": "https://evil.example:8443", "ca": "another CA", "tcti": "swtpm:host=evil.example,port=2321"}


class Image:
    """What the image of a node says, in a folder: files that a root file system would hold."""

    def __init__(self, scene: Any, folder: Path) -> None:
        self.scene, self.folder, self.ticket = scene, folder, folder / "ticket"
        self.site, self.made = folder / "site.json", 1_735_689_600.0
        (folder / "ca.pem").write_text(scene.standin.server_ca.pem)
        issuer = x509.load_der_x509_certificate(scene.device.authority.chain[0])
        scene.standin.trust_tpms_of(issuer)  # an agent in an image has no certificates beside those in the TPM

    def write(self) -> None:
        said = {"url": self.scene.standin.url, "ca": str(self.folder / "ca.pem")}
        self.site.write_text(json.dumps(said))
        os.utime(self.site, (self.made, self.made))

    def hand_in_ticket(self) -> None:
        said = {"asset": "kerb-7", "ca_sha256": self.scene.standin.server_ca.sha256, "url": self.scene.standin.url}
        text = json.dumps(said | {"secret": "s"}).encode()
        self.ticket.write_text(base64.urlsafe_b64encode(text).decode().rstrip("="))

    @contextlib.asynccontextmanager
    async def booted(self) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        """Start the program; yields what it says."""
        self.write()
        words = ["--site", self.site, "--state", self.scene.state, "--boot-log", self.scene.log]
        words += ["--ticket", self.ticket, "--tcti", self.scene.device.tcti]
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "umec_attest.agent.boot", *map(str, words)), stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout is not None
        try:
            yield _said(program.stdout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                program.send_signal(signal.SIGTERM)
            await program.stdout.read()
            await program.wait()


async def _said(output: asyncio.StreamReader) -> AsyncIterator[Mapping[str, Any]]:
    async for line in output:
        yield json.loads(line.decode().removeprefix("umec-node: "))


async def until(said: AsyncIterator[Mapping[str, Any]], *events: str) -> list[Mapping[str, Any]]:
    """Return what was said up to the first of these events."""
    found: list[Mapping[str, Any]] = []
    async with asyncio.timeout(60):
        async for line in said:
            found.append(line)
            if line["event"] in events:
                return found
    raise AssertionError(f"it ended without {events}: {found}")


@pytest.fixture
def image(scene: Any, tmp_path: Path) -> Image:
    return Image(scene, tmp_path)


@pytest.mark.parametrize("name", EVIL)
def test_a_state_that_names_another_site_is_told(scene: Any, name: str) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            await enrol(scene.plan(), scene.state)

    asyncio.run(playing())
    state = load_state(scene.state)
    site = Site(scene.standin.url, scene.standin.server_ca.pem)
    check_state(state, site, scene.device.tcti)
    with pytest.raises(StateOfAnotherSite, match=name) as refused:
        check_state(dataclasses.replace(state, **{name: EVIL[name]}), site, scene.device.tcti)
    assert refused.value.code == "state-of-another-site"


def test_whoever_writes_the_state_moves_no_node_to_another_site(image: Image, scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            await enrol(scene.plan(), scene.state)
            save_state(scene.state, dataclasses.replace(load_state(scene.state), **EVIL))
            image.hand_in_ticket()
            async with image.booted() as said:
                lines = await until(said, "round", "refused")
            assert [line["event"] for line in lines] == ["enrolling-anew", "enrolled", "round"]
            assert lines[0]["code"] == "state-of-another-site"
            check_state(load_state(scene.state), read_site(image.site), scene.device.tcti)
            async with image.booted() as said:
                assert [line["event"] for line in await until(said, "round", "refused")] == ["round"]

    asyncio.run(playing())


@pytest.mark.parametrize("fault", ["no file", "no JSON", "no CA", "a member that nobody reads"])
def test_an_image_that_names_no_site(image: Image, fault: str) -> None:
    image.scene.standin.port = 8443
    image.write()
    assert read_site(image.site) == Site(image.scene.standin.url, image.scene.standin.server_ca.pem)
    if fault == "no file":
        image.site.unlink()
    elif fault == "no JSON":
        image.site.write_text("{")
    elif fault == "a member that nobody reads":
        image.site.write_text(json.dumps(json.loads(image.site.read_text()) | {"image": "any"}))
    else:
        (image.folder / "ca.pem").unlink()
    with pytest.raises(AgentStateInvalid) as refused:
        read_site(image.site)
    assert refused.value.code == "agent-state-invalid"


def waits(*refusals: UmecError) -> list[float]:
    """For how long it waits where the work is refused so often, and done then."""
    left, slept = list(refusals), []

    def work() -> None:
        if left:
            raise left.pop(0)

    persist(work, slept.append)
    return slept


def test_who_is_refused_asks_less_and_less_often() -> None:
    refused = RemoteRefused("ticket-used", "it was used", status=409)
    found = waits(*[refused] * 12)
    assert [5 <= found[0] <= 10, 10 <= found[1] <= 20, 40 <= found[3] <= 80] == [True] * 3
    assert all(450 <= seconds <= 900 for seconds in found[7:])
    assert waits() == []


def test_who_is_asked_to_wait_waits() -> None:
    [found] = waits(RemoteRefused("verifier-busy", "busy", status=503, retry_after=200.0))
    assert found >= 200


def test_a_network_that_is_late_is_tried_often() -> None:
    assert all(seconds <= 30 for seconds in waits(*[RemoteUnavailable("no route")] * 12))


def test_a_node_without_a_ticket_enrolls_as_its_site_says(image: Image, scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            for approved in (True, False):
                scene.standin.approves = approved
                async with image.booted() as said:
                    lines = await until(said, "round", "refused")
                assert [line["event"] for line in lines] == ["enrolled", "round"]
                assert (lines[0]["node"], lines[0]["approved"]) == ("tpm-0123456789abcdef", approved)
                assert lines[0].get("advice") == (None if approved else "umec node approve tpm-0123456789abcdef")
                check_state(load_state(scene.state), read_site(image.site), scene.device.tcti)
                shutil.rmtree(scene.state)

    asyncio.run(playing())


def test_a_node_without_a_ticket_says_where_it_looks_for_one(image: Image, scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            scene.standin.faults["enrolments"] = [TicketRequired("no", advice="umec node allow NAME")]
            async with image.booted() as said:
                [line] = await until(said, "refused", "enrolled")
            assert line["code"] == "ticket-missing"
            assert "data partition" in line["detail"]
            assert "umec node allow NAME" in line["detail"]
            image.hand_in_ticket()
            async with image.booted() as said:
                assert [line["event"] for line in await until(said, "refused", "enrolled")] == ["enrolled"]

    asyncio.run(playing())


def test_another_refusal_is_told_as_it_is(image: Image, scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            scene.standin.faults["enrolments"] = [NodeOtherEk("another TPM")]
            async with image.booted() as said:
                [line] = await until(said, "refused", "enrolled")
            assert line["code"] == "node-other-ek"

    asyncio.run(playing())


def test_what_cannot_be_read_is_no_ticket_that_is_missing(image: Image, scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            image.ticket.mkdir()
            async with image.booted() as said:
                [line] = await until(said, "refused", "enrolled")
            assert (line["code"], scene.standin.asked) == ("ticket-invalid", [])

    asyncio.run(playing())


def test_of_a_ticket_no_more_is_read_than_one_has(image: Image, scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            image.hand_in_ticket()
            image.ticket.write_text(image.ticket.read_text() + " " * 100_000 + "x")
            async with image.booted() as said:
                assert [line["event"] for line in await until(said, "refused", "enrolled")] == ["enrolled"]

    asyncio.run(playing())


def test_a_clock_from_before_the_image_is_refused(image: Image) -> None:
    image.write()
    made = datetime.fromtimestamp(image.made, UTC)
    check_clock(made, image.site)
    with pytest.raises(ClockBehind, match=r"2024-12-31 23:59, .* 2025-01-01") as refused:
        check_clock(made - timedelta(seconds=1), image.site)
    assert refused.value.code == "clock-behind"


def test_a_node_whose_clock_is_behind_asks_nobody(image: Image, scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            image.hand_in_ticket()
            image.made = 4_102_444_800.0
            async with image.booted() as said:
                [line] = await until(said, "refused", "enrolled")
            assert (line["code"], scene.standin.asked) == ("clock-behind", [])

    asyncio.run(playing())
