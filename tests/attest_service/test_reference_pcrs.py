"""A reference set fits what nodes are asked for, or is not taken: by any other, no quote at all could be good."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from umec_attest.ima import parse_runtime_policy
from umec_attest.reference import FirmwareModel, sign_reference_set
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import IMAGE, FleetVerifier
from umec_attest.testing.image import make_image
from umec_attest.tpm.algorithms import HashAlgorithm

USUAL = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)
RUNTIME = parse_runtime_policy({"files": {"/usr/sbin/init": ["ab" * 32]}})

Said = dict[str, Any]


def listed(boot: Boot, *pcrs: int) -> dict[HashAlgorithm, dict[int, list[bytes]]]:
    return {HashAlgorithm.SHA256: {pcr: [boot.pcrs[pcr]] for pcr in pcrs}}


def without(boot: Boot, *pcrs: int) -> Said:
    return {"pcrs": listed(boot, *(pcr for pcr in USUAL if pcr not in pcrs))}


def by_model(boot: Boot, *, left_out: int | None = None, more: tuple[int, ...] = ()) -> Said:
    """PCR 0 to 2 and `more` are said by the model of the firmware."""
    firmware = {pcr: frozenset({boot.pcrs[pcr]}) for pcr in (0, 1, 2, *more) if pcr != left_out}
    return {**without(boot, 0, 1, 2), "models": {"lamp 1.0": FirmwareModel({HashAlgorithm.SHA256: firmware}, {})}}


def other_bank_alone(_: Boot) -> Said:
    return {"pcrs": {HashAlgorithm.SHA384: {0: [bytes(48)]}}}


def other_bank(boot: Boot) -> Said:
    return {"pcrs": listed(boot, *USUAL) | {HashAlgorithm.SHA384: {0: [bytes(48)]}}}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (lambda boot: without(boot, 3), "neither lists nor ignores: [3]"),
        (lambda boot: {**without(boot), "runtime": RUNTIME}, "neither lists nor ignores: [8]"),
        (lambda boot: by_model(boot, left_out=1), "neither lists nor ignores: [1]"),
        (other_bank_alone, f"neither lists nor ignores: {list(USUAL)}"),
        (lambda boot: {"pcrs": listed(boot, *USUAL, 8)}, "not asked for: 8 (sha256)"),
        (lambda boot: by_model(boot, more=(13,)), "not asked for: 13 (sha256)"),
        (other_bank, "not asked for: 0 (sha384)"),
    ],
)
def test_a_set_that_no_quote_could_meet_is_refused(
    tmp_path: Path, clock: Any, said: Callable[[Boot], Said], found: str
) -> None:
    boot = Boot.of(make_image(tmp_path / "image"))
    node = SimulatedNode("node-1", make_keys(1), boot)

    async def body() -> None:
        verifier = FleetVerifier(tmp_path / "verifier", clock=clock)
        await verifier.enrol([node])
        service = await verifier.open()

        async def standing() -> str:
            challenge = await service.rounds.challenge(node.name)
            request = EvidenceRequest.model_validate(node.evidence(challenge))
            return str((await service.rounds.submit(request, address="192.0.2.1"))["standing"])

        await verifier.install(service, verifier.reference([boot]))
        assert await standing() == "trusted"
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await verifier.install(service, envelope(verifier, 2, clock(), said(boot)))
        problem = refused.value.response.json()
        assert (problem["status"], problem["code"]) == (422, "reference-pcrs")
        assert problem["detail"].endswith(found)
        assert "attest.pcrs" in problem["advice"]
        assert await standing() == "trusted"
        entries = (await verifier.audit_log(service))["entries"]
        assert (entries[-1]["action"], entries[-1].get("code")) == ("reference.install", "reference-pcrs")
        await service.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (without, USUAL),
        (by_model, USUAL),
        (lambda boot: {**without(boot, 3), "ignored": {3: "a board measures its slots"}}, USUAL),
        (lambda boot: {**without(boot), "ignored": {13: "asked for from tomorrow on"}}, USUAL),
        (lambda boot: {"pcrs": listed(boot, *USUAL, 8), "runtime": RUNTIME}, USUAL),
        (lambda boot: {**without(boot), "ignored": {8: "a boot loader counts"}, "runtime": RUNTIME}, USUAL),
        (lambda boot: {"pcrs": listed(boot, *USUAL, 13)}, (*USUAL, 13)),
        (lambda boot: without(boot, 3), tuple(pcr for pcr in USUAL if pcr != 3)),
    ],
)
def test_sets_that_fit_are_taken(
    tmp_path: Path, clock: Any, said: Callable[[Boot], Said], asked: tuple[int, ...]
) -> None:
    boot = Boot.of(make_image(tmp_path / "image"))

    async def body() -> None:
        verifier = FleetVerifier(tmp_path / "verifier", clock=clock, pcrs=asked)
        service = await verifier.open()
        await verifier.install(service, envelope(verifier, 1, clock(), said(boot)))
        await service.close()

    asyncio.run(body())


def envelope(verifier: FleetVerifier, version: int, now: Any, said: Said) -> bytes:
    return sign_reference_set(
        **{
            "name": IMAGE,
            "subject_sha256": "cd" * 32,
            "version": version,
            "issued": now,
            "expires": now + timedelta(days=30),
            "ignored": {},
            "key": verifier._signer,
            **said,
        }
    )
