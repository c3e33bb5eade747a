"""The first set that says what may run, between challenge and answer: nobody misses a list that was not asked for."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from umec_attest.ima import RuntimePolicy, parse_runtime_policy
from umec_attest.reference import sign_reference_set
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import IMAGE, FleetVerifier
from umec_attest.testing.image import make_image
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.errors import UmecError

NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
PCRS = (*range(13), 14)
"""With those that a list needs: the selection is the same before and after."""
PROGRAM = ("/usr/sbin/init", b"init")
POLICY = parse_runtime_policy({"files": {PROGRAM[0]: [hashlib.sha256(PROGRAM[1]).hexdigest()]}})


@pytest.mark.parametrize(("first", "second"), [(None, POLICY), (POLICY, None)])
def test_an_answer_to_what_is_asked_no_more_fells_nobody(
    tmp_path: Path, first: RuntimePolicy | None, second: RuntimePolicy | None
) -> None:
    async def body() -> None:
        verifier = FleetVerifier(tmp_path / "verifier", clock=lambda: NOW, pcrs=PCRS)
        boot = Boot.of(make_image(tmp_path / "image"))
        node = SimulatedNode("node-1", make_keys(1), boot, programs=[PROGRAM])
        await verifier.enrol([node])
        service = await verifier.open()

        async def install(version: int, runtime: RuntimePolicy | None) -> None:
            envelope = sign_reference_set(
                name=IMAGE,
                subject_sha256="cd" * 32,
                version=version,
                issued=NOW,
                expires=NOW + timedelta(days=9),
                pcrs={HashAlgorithm.SHA256: {pcr: [boot.pcrs[pcr]] for pcr in PCRS if pcr != 10}},
                ignored={10: "judged by no list"} if runtime is None else {},
                runtime=runtime,
                key=verifier._signer,
            )
            await verifier.install(service, envelope)

        async def answer() -> EvidenceRequest:
            return EvidenceRequest.model_validate(node.evidence(await service.rounds.challenge(node.name)))

        try:
            await install(1, first)
            assert (await service.rounds.submit(await answer(), address="192.0.2.1"))["standing"] == "trusted"
            of_before = await answer()
            await install(2, second)
            with pytest.raises(UmecError) as caught:
                await service.rounds.submit(of_before, address="192.0.2.1")
            assert caught.value.code == "nonce-superseded"
            said = await service.rounds.submit(await answer(), address="192.0.2.1")
            assert (said["standing"], said["findings"]) == ("trusted", [])
        finally:
            await service.close()

    asyncio.run(body())
