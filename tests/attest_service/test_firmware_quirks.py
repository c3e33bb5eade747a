"""A firmware whose log is not as it should be: refused, unless the reference set excuses that for this very build."""

import sys
from datetime import timedelta
from typing import Any

from umec_attest.predict import predict
from umec_attest.reference import FirmwareModel, sign_reference_set
from umec_attest.tpm.algorithms import HashAlgorithm

SHA256 = HashAlgorithm.SHA256
QUIRK = "spec-id-vendor-info-size"


def uncounted(log: bytes) -> bytes:
    """The same log with vendorInfo that its first event announces and does not count: no PCR changes by it."""
    size = 32 + int.from_bytes(log[28:32], "little")
    assert log[size - 1] == 0  # vendorInfoSize
    return log[: size - 1] + b"\x04vend" + log[size:]


async def install(world: Any, version: int, excused: dict[str, str]) -> None:
    values = predict(world.tpms.image).pcrs
    now = world.clock()
    envelope = sign_reference_set(
        name="edge-node",
        subject_sha256="cd" * 32,
        version=version,
        issued=now,
        expires=now + timedelta(days=30),
        pcrs={SHA256: {pcr: [value] for pcr, value in values.items() if pcr}},
        ignored={},
        models={"lamp 1.0": FirmwareModel({SHA256: {0: frozenset({values[0]})}}, excused)},
        key=sys.modules[type(world).__module__].SIGNER,
    )
    answer = await world.http.post("/attest/v1/reference-sets", content=envelope, headers=world.admin)
    assert answer.status_code == 201, answer.text


def test_a_quirk_of_the_form_is_excused_by_the_set_that_names_the_firmware(run: Any, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            await install(world, 1, {QUIRK: "the vendor counts wrongly"})
            good = booted.log
            booted.log = uncounted(good)
            for _ in range(2):  # sent, and then known by its hash
                answer = await world.round(booted)
                assert (answer["verdict"], answer["standing"]) == ("affirming", "trusted")
                assert [finding["id"] for finding in answer["findings"]] == ["excused"]
                assert QUIRK in answer["findings"][0]["detail"]
            await install(world, 2, {})
            answer = await world.round(booted)
            assert answer["verdict"] == "contraindicated"
            booted.log = good

    run(body)


def test_without_the_excuse_such_a_log_is_not_read(run: Any, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            await install(world, 1, {})
            good = booted.log
            booted.log = uncounted(good)
            answer = await world.round(booted)
            assert [finding["id"] for finding in answer["findings"]] == ["bootlog-vendor-info-size"]
            booted.log = good

    run(body)
