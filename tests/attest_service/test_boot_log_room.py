"""Logs and evidence of a node take bounded room, whatever it sends: data that no digest covers may be anything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from umec_attest.service import AttestService
from umec_attest.service.evidence import history
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.tables import BootLogRow, EvidenceRow, NodeRow, RoundRow
from umec_attest.testing.eventlog import EventType, Measurement, serialize_log
from umec_attest.testing.firmware import measurements
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import FleetVerifier
from umec_attest.testing.image import load_image, make_image
from umec_core.errors import UmecError

UNCOVERED = EventType.EFI_PLATFORM_FIRMWARE_BLOB
"""The digest of such an event is over the firmware that it names, not over its data."""


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class World:
    """A verifier with two nodes of one image; `measured` is what they measure."""

    service: AttestService
    clock: Clock
    nodes: list[SimulatedNode]
    measured: list[Measurement]

    async def round(self, node: SimulatedNode, **changes: Any) -> dict[str, Any]:
        challenge = await self.service.rounds.challenge(node.name)
        body = EvidenceRequest.model_validate({**node.evidence({**challenge, "boot_log": "full"}), **changes})
        return await self.service.rounds.submit(body, address="192.0.2.1")

    def log(self, number: int, *more: Measurement, size: int = 1000) -> bytes:
        """Another log of the same boot."""
        data = b"%d" % number * size
        listed = [replace(each, data=data) if each.kind == UNCOVERED else each for each in self.measured]
        return serialize_log([*listed, *more])

    async def kept(self, row: Any) -> list[Any]:
        async with self.service._store.read() as session:
            return list(await session.scalars(select(row)))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[World]:
    clock, image = Clock(), make_image(folder / "image")
    verifier, boot = FleetVerifier(folder / "verifier", clock=clock), Boot.of(image)
    nodes = [SimulatedNode(f"node-{n}", make_keys(n), boot) for n in range(2)]
    await verifier.enrol(nodes)
    service = await verifier.open()
    try:
        await verifier.install(service, verifier.reference([boot]))
        yield World(service, clock, nodes, list(measurements(load_image(image))))
    finally:
        await service.close()


def test_of_a_node_only_the_log_that_it_sent_last_is_kept(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path) as world:
            node, other = world.nodes
            for each in world.nodes:
                assert (await world.round(each))["standing"] == "trusted"
            shared = node.log
            for number in range(3):
                node.log = world.log(number)
                assert (await world.round(node))["verdict"] != "contraindicated"  # it replays
            assert sorted(row.content for row in await world.kept(BootLogRow)) == sorted([shared, node.log])
            other.log = node.log
            await world.round(other)
            assert [row.content for row in await world.kept(BootLogRow)] == [node.log]
            assert len(await world.kept(RoundRow)) == 6

    asyncio.run(body())


def test_a_log_that_is_asked_for_anew_is_forgotten_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path) as world:
            node, other = world.nodes
            for each in world.nodes:
                await world.round(each)
            node.log = world.log(1)
            await world.round(node)
            for each, left in ((node, [other.log]), (other, [])):
                with pytest.raises(UmecError) as caught:
                    await world.round(each, boot_log_sha256="00" * 32)
                assert caught.value.code == "boot-log-required"
                assert [row.content for row in await world.kept(BootLogRow)] == left

    asyncio.run(body())


@pytest.mark.parametrize(
    ("bound", "value", "kept"), [("MOST_EVIDENCE", 3, 3), ("MOST_EVIDENCE_SIZE", 25_000, 2), ("MOST_EVIDENCE", 9, 5)]
)
def test_the_first_evidence_of_a_node_is_kept_and_no_more_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, kept: int
) -> None:
    monkeypatch.setattr(history, bound, value)
    evil = Measurement(4, EventType.EFI_ACTION, b"\x66" * 32, b"evil")

    async def body() -> None:
        async with opened(tmp_path) as world:
            node, other = world.nodes
            for each in world.nodes:
                await world.round(each)
            node.pcrs = dict(Boot.measuring([*world.measured, evil]).pcrs)
            sent = []
            for number in range(5):
                node.log = world.log(number, evil, size=15_000)
                sent.append(node.log)
                assert (await world.round(node))["standing"] == "untrusted"
            evidence = await world.kept(EvidenceRow)
            logs = {row.sha256: row.content for row in await world.kept(BootLogRow)}
            assert [logs[row.boot_log_sha256] for row in sorted(evidence, key=lambda row: row.kept_at)] == sent[:kept]
            assert set(logs.values()) == {other.log, *sent[:kept], sent[-1]}
            assert len(await world.kept(RoundRow)) == 7  # what they said is told all the same
            other.pcrs, other.log = node.pcrs, node.log
            await world.round(other)
            assert len(await world.kept(EvidenceRow)) == kept + 1  # the bound is of each node
            world.clock.now += timedelta(days=31)
            await world.service.tend()
            assert await world.kept(EvidenceRow) == []
            named = {row.boot_log_sha256 for row in await world.kept(NodeRow)}
            assert {row.sha256 for row in await world.kept(BootLogRow)} == named

    asyncio.run(body())
