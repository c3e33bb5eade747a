"""A filed reference set is read once by each process, whatever comes out: strangers may ask for challenges."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from umec_attest.service import AttestService
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.references import filed as references
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import IMAGE, FleetVerifier
from umec_attest.testing.image import make_image
from umec_core.errors import UmecError

DAY = 24 * 3600


def nothing(_: Path, __: Any) -> None:
    pass


def expire(_: Path, clock: Any) -> None:
    clock.advance(366 * DAY)


def turn_back(_: Path, clock: Any) -> None:
    """The verifier's own clock is wrong after a restart."""
    clock.advance(-DAY)


def pin_another(folder: Path, _: Any) -> None:
    (folder / "signer.key").unlink()


def file_as_another(folder: Path, _: Any) -> None:
    """Somebody with the database gives the row another digest: no set that is read ever has it."""
    with sqlite3.connect(folder / "attest.db") as database:
        database.execute("UPDATE reference_set SET sha256 = ?", ("0" * 64,))
    database.close()


def file_an_older_one(folder: Path, _: Any) -> None:
    """Somebody with the database gives a set of before a newer number: what was withdrawn would count again."""
    with sqlite3.connect(folder / "attest.db") as database:
        database.execute("UPDATE reference_set SET version = 2")
    database.close()


def file_that_of_another_image(folder: Path, _: Any) -> None:
    """Somebody with the database lets the nodes of one image boot another one."""
    with sqlite3.connect(folder / "attest.db") as database:
        database.execute("DELETE FROM reference_set WHERE image = ?", (IMAGE,))
        database.execute("UPDATE reference_set SET image = ?", (IMAGE,))
    database.close()


async def answer(service: AttestService, node: SimulatedNode) -> str:
    challenge = await service.rounds.challenge(node.name)
    request = EvidenceRequest.model_validate(node.evidence(challenge))
    try:
        return str((await service.rounds.submit(request, address="192.0.2.1"))["standing"])
    except UmecError as error:
        return error.code


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nothing, "trusted"),
        (expire, "reference-expired"),
        (turn_back, "reference-not-yet-valid"),
        (pin_another, "reference-signature"),
        (file_as_another, "reference-invalid"),
        (file_an_older_one, "reference-invalid"),
        (file_that_of_another_image, "reference-invalid"),
    ],
)
def test_what_is_filed_is_read_once_for_all_challenges(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, Any], None], said: str
) -> None:
    boot = Boot.of(make_image(tmp_path / "image"))
    nodes = [SimulatedNode(f"node-{number}", make_keys(number), boot) for number in range(4)]
    read: list[bytes] = []

    def counted(envelope: bytes, **given: Any) -> Any:
        read.append(envelope)
        return original(envelope, **given)

    original = references.read_reference_set
    monkeypatch.setattr(references, "read_reference_set", counted)

    async def body() -> None:
        verifier = FleetVerifier(tmp_path / "verifier", clock=clock)
        await verifier.enrol(nodes)
        service = await verifier.open()
        for image in (IMAGE, "another-image"):
            await verifier.install(service, verifier.reference([boot], image=image))
        await service.close()
        change(tmp_path / "verifier", clock)
        verifier = FleetVerifier(tmp_path / "verifier", clock=clock)
        service = await verifier.open()
        read.clear()
        await asyncio.gather(*(service.rounds.challenge(node.name) for node in nodes))  # at one moment
        for node in nodes:  # and one after the other
            assert await answer(service, node) == said
        assert len(read) == 1
        if said != "reference-not-yet-valid":
            await verifier.install(service, verifier.reference([boot], version=3))
            assert await answer(service, nodes[0]) == "trusted"
            assert len(read) == 2
        await service.close()

    asyncio.run(body())


def test_a_known_envelope_is_not_fetched_again(tmp_path: Path, clock: Any) -> None:
    """An envelope has megabytes, and a challenge needs nothing of it that is not known."""
    boot = Boot.of(make_image(tmp_path / "image"))

    async def body() -> None:
        verifier = FleetVerifier(tmp_path / "verifier", clock=clock)
        service = await verifier.open()
        await verifier.install(service, verifier.reference([boot]))
        filed = references.FiledReferences(service._store, signers=[verifier._signer.public_key()])

        async def newest() -> references.FiledReference:
            known = await service._store.read_plain(lambda connection: filed.identities(connection, {"edge-node"}))
            return await filed.filed("edge-node", known["edge-node"])

        first = await newest()
        assert isinstance(first.content, bytes)
        assert filed.verified(first, clock()).version == 1
        again = await newest()
        assert not isinstance(again.content, bytes)
        assert filed.verified(again, clock()).version == 1
        await verifier.install(service, verifier.reference([boot], version=2))
        newer = await newest()
        assert isinstance(newer.content, bytes)
        assert filed.verified(newer, clock()).version == 2
        await service.close()

    asyncio.run(body())
