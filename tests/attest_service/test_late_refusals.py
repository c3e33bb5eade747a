"""What a refused round asks of the next one is not written where meanwhile another round counted or other keys came."""

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.tables import NodeRow
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import FleetVerifier
from umec_attest.testing.image import make_image
from umec_core.errors import UmecError

NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
PROGRAM = ("/usr/sbin/init", b"init")

Sent = dict[str, Any]


def of_another_log(_: SimulatedNode, sent: Sent) -> Sent:
    return {**sent, "boot_log_sha256": "00" * 32}


def in_parts(node: SimulatedNode, sent: Sent) -> Sent:
    assert node.runtime is not None
    return {**sent, "ima": base64.b64encode(node.runtime.entries[sent["ima_from"]]).decode(), "ima_more": True}


def nothing(_: NodeRow) -> None:
    """Nobody else is at work."""


def another_round(row: NodeRow) -> None:
    row.rounds += 1


def another_key(row: NodeRow) -> None:
    row.ak_public = make_keys(2).ak_public


@pytest.mark.parametrize(("change", "written"), [(nothing, True), (another_round, False), (another_key, False)])
@pytest.mark.parametrize(
    ("kind", "code", "column"),
    [
        (of_another_log, "boot-log-required", "boot_log_sha256"),
        (in_parts, "runtime-list-continues", "runtime_checkpoint"),
    ],
)
def test_a_late_refusal_changes_nothing(
    tmp_path: Path,
    hand_in: Any,
    kind: Callable[[SimulatedNode, Sent], Sent],
    code: str,
    column: str,
    change: Callable[[NodeRow], None],
    written: bool,
) -> None:
    async def body() -> None:
        verifier = FleetVerifier(tmp_path / "verifier", clock=lambda: NOW)
        boot = Boot.of(make_image(tmp_path / "image"))
        node = SimulatedNode("node-1", make_keys(1), boot, programs=[PROGRAM])
        await verifier.enrol([node])
        service = await verifier.open()
        store = service._store

        async def submit(evidence: Sent) -> dict[str, Any]:
            return await service.rounds.submit(EvidenceRequest.model_validate(evidence), address="192.0.2.1")

        async def row() -> NodeRow:
            async with store.read() as session:
                return await session.get_one(NodeRow, node.name)

        holds, released = asyncio.Event(), asyncio.Event()

        async def meanwhile(session: Any) -> None:
            holds.set()
            await released.wait()
            change(await session.get_one(NodeRow, node.name))

        try:
            await verifier.install(service, verifier.reference([boot], programs=[PROGRAM]))
            assert (await submit(node.evidence(await service.rounds.challenge(node.name))))["standing"] == "trusted"
            node.start(*PROGRAM)
            node.start(*PROGRAM)
            before = getattr(await row(), column)
            sent = kind(node, node.evidence(await service.rounds.challenge(node.name)))
            changing = asyncio.create_task(store.write(meanwhile))
            await holds.wait()
            submitting = asyncio.create_task(submit(sent))
            await hand_in(store, submitting)  # it is judged, and waits to be written
            released.set()
            await changing
            with pytest.raises(UmecError) as caught:
                await submitting
            assert caught.value.code == code
            assert (getattr(await row(), column) != before) is written
        finally:
            await service.close()

    asyncio.run(body())
