"""Rounds over HTTP: what is refused and changes nothing, what falls, and the same attempt without its fault."""

import asyncio
import base64
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from sqlalchemy import delete

from umec_attest.ear import EAR_TYPE
from umec_attest.service.tables import BootLogRow, EvidenceRow
from umec_attest.testing.adversary import drop_event, extend_pcr, flip_byte
from umec_attest.testing.image import Tamper
from umec_core.jose import KeySet, verify_jwt

Run = Callable[..., None]


def test_a_good_round_makes_a_node_trusted_and_signs_a_result_about_its_key(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            result = await world.ready_node(booted)
            assert (result["verdict"], result["standing"], result["generation"]) == ("affirming", "trusted", 2), result
            keys = KeySet.from_jwks((await world.http.get("/attest/v1/jwks")).json())
            claims = verify_jwt(result["ear"], keys, typ=EAR_TYPE)
            assert claims["cnf"]["jwk"] == booted.node.node_key_jwk
            assert (claims["sub"], claims["aud"]) == ("node-1", "https://edge.example:8443")
            assert claims["umec"]["tenant"] == "acme"
            assert claims["umec"]["generation"] == 2
            again = await world.round(booted)
            assert (again["standing"], again["generation"]) == ("trusted", 2)

    run(body)


def test_a_replayed_answer_is_refused(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = booted.evidence(await world.challenge())
            await world.post("evidence", evidence)
            assert (await world.post("evidence", evidence, status=409))["code"] == "evidence-replayed"
            old = {**evidence, "challenge": (await world.challenge())["challenge"]}
            assert (await world.post("evidence", old, status=422))["code"] == "quote-nonce-mismatch"
            assert (await world.get("nodes/node-1"))["standing"] == "trusted"
            assert ("evidence.submit", "refused", "evidence-replayed") in await world.audited()
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_of_concurrent_answers_to_one_challenge_exactly_one_wins(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = booted.evidence(await world.challenge())
            answers = await asyncio.gather(*(world.http.post("/attest/v1/evidence", json=evidence) for _ in range(12)))
            found = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
            assert found == {(200, None): 1, (409, "evidence-replayed"): 11}
            assert (await world.get("nodes/node-1"))["rounds"] == 2

    run(body)


def test_a_challenge_from_before_another_enrolment_has_no_answer(run: Run, tpms: Any) -> None:
    """Neither one that waits, nor one that was answered two rounds ago: the AK is the same, and the count goes on."""

    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            await world.reference()
            answered, waits = booted.evidence(await world.challenge()), booted.evidence(await world.challenge())
            await world.post("evidence", answered)
            assert (await world.round(booted))["standing"] == "trusted"
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            for former in (answered, waits):
                assert (await world.post("evidence", former, status=409))["code"] == "nonce-superseded"
            assert (await world.get("nodes/node-1"))["standing"] == "pending"
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_of_two_challenges_of_one_round_only_the_first_answered_counts(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            first, second = await world.challenge(), await world.challenge()
            late = booted.evidence(second)
            await world.post("evidence", booted.evidence(first))
            assert (await world.post("evidence", late, status=409))["code"] == "nonce-superseded"
            assert (await world.round(booted))["verdict"] == "affirming"

    run(body)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda e: {**e, "challenge": "AAAA"}, 422, "nonce-unknown"),
        (
            lambda e: {**e, "challenge": e["challenge"][:-1] + ("A" if e["challenge"][-1] != "A" else "Q")},
            422,
            "nonce-unknown",
        ),
        (lambda e: {**e, "signature": flipped(e["signature"], -1)}, 422, "signature-invalid"),
        (lambda e: {**e, "quote": flipped(e["quote"], 0)}, 400, "tpm-invalid"),
        (lambda e: {**e, "quote": flipped(e["quote"], -1)}, 422, "signature-invalid"),
        (lambda e: {**e, "pcrs": {"sha256": {**e["pcrs"]["sha256"], "4": "00" * 32}}}, 422, "pcr-digest-mismatch"),
        (lambda e: {**e, "pcrs": {"sha256": {"4": e["pcrs"]["sha256"]["4"]}}}, 400, "pcr-values-invalid"),
        (lambda e: {**e, "pcrs": {}}, 400, "pcr-values-invalid"),
        (lambda e: {**e, "extra": 1}, 400, "invalid-input"),
        (lambda e: {**e, "quote": "not base64!"}, 400, "invalid-input"),
    ],
)
def test_what_is_not_authentic_changes_nothing(
    run: Run, tpms: Any, change: Callable[[dict[str, Any]], dict[str, Any]], status: int, code: str
) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = booted.evidence(await world.challenge())
            assert (await world.post("evidence", change(evidence), status=status))["code"] == code
            node = await world.get("nodes/node-1")
            assert (node["standing"], node["generation"], node["rounds"]) == ("trusted", 2, 1)
            assert (await world.post("evidence", evidence))["verdict"] == "affirming"  # the same, without its fault

    run(body)


def test_another_boot_log_than_before_is_wanted_whole(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            challenge = await world.challenge()
            assert challenge["boot_log"] == "digest"
            other = {**booted.evidence(challenge), "boot_log_sha256": "00" * 32}
            assert (await world.post("evidence", other, status=422))["code"] == "boot-log-required"
            challenge = await world.challenge()
            assert challenge["boot_log"] == "full"
            assert (await world.post("evidence", booted.evidence(challenge)))["standing"] == "trusted"
            assert (await world.challenge())["boot_log"] == "digest"

    run(body)


def test_a_boot_log_and_its_hash_do_not_contradict_each_other(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            await world.reference()
            evidence = booted.evidence(await world.challenge())
            other = {**evidence, "boot_log_sha256": "00" * 32}
            assert (await world.post("evidence", other, status=422))["code"] == "boot-log-required"
            assert (await world.post("evidence", evidence))["standing"] == "trusted"

    run(body)


def test_after_a_log_that_did_not_hold_no_hash_will_do(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            good, booted.log = booted.log, booted.log[:-1]
            challenge = {**await world.challenge(), "boot_log": "full"}
            assert (await world.post("evidence", booted.evidence(challenge)))["standing"] == "untrusted"
            booted.log = good
            by_hash = booted.evidence({**await world.challenge(), "boot_log": "digest"})
            refused = await world.post("evidence", by_hash, status=422)
            assert (refused["code"], refused["detail"][:24]) == ("boot-log-required", "the node booted since it")
            assert (await world.round(booted))["verdict"] == "affirming"

    run(body)


def test_a_boot_log_that_is_not_kept_any_more_is_wanted_again(reopen: Any, tpms: Any, clock: Any) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as world:
                await world.ready_node(booted)
                await world.service._store.write(lambda session: session.execute(delete(BootLogRow)))
            async with reopen(clock) as world:
                assert (await world.round(booted, status=422))["code"] == "boot-log-required"
                assert (await world.round(booted))["verdict"] == "affirming"

    asyncio.run(body())


def test_a_late_answer_and_one_for_another_node_are_refused(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as first, tpms.booted("node-2", 1) as second:
            await world.ready_node(first)
            await world.ready_node(second)
            evidence = first.evidence(await world.challenge())
            foreign = {**evidence, "node": "node-2"}
            assert (await world.post("evidence", foreign, status=422))["code"] == "nonce-unknown"
            borrowed = {**second.evidence(await world.challenge("node-2")), "challenge": evidence["challenge"]}
            borrowed["node"] = "node-1"
            assert (await world.post("evidence", borrowed, status=422))["code"] == "quote-nonce-mismatch"
            world.clock.advance(19.9)
            assert (await world.post("evidence", evidence))["verdict"] == "affirming"
            evidence = first.evidence(await world.challenge())
            world.clock.advance(20)
            assert (await world.post("evidence", evidence, status=422))["code"] == "nonce-expired"

    run(body)


def test_a_changed_stage_fells_the_node_until_it_boots_well(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await world.ready_node(other)
            booted.reboot(Tamper.CMDLINE)
            assert (await world.round(booted, status=422))["code"] == "boot-log-required"
            assert (await world.get("nodes/node-1"))["standing"] == "trusted"  # a reboot alone is no alarm
            fallen = await world.round(booted)
            assert (fallen["verdict"], fallen["standing"], fallen["generation"]) == ("contraindicated", "untrusted", 3)
            assert fallen["ear"] is None
            assert "pcr-unexpected" in {finding["id"] for finding in fallen["findings"]}
            explained = await world.get("nodes/node-1/explain")
            assert explained["last_round"]["verdict"] == "contraindicated"
            assert [change["standing"] for change in explained["history"]] == ["untrusted", "trusted", "pending"]
            booted.reboot()
            await world.round(booted, status=200)
            assert (await world.get("nodes/node-1"))["standing"] == "trusted"
            assert (await world.get("nodes/node-2"))["generation"] == 2

    run(body)


def test_an_untrusted_node_does_not_come_back_within_one_boot(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            log, booted.log = booted.log, drop_event(booted.log, 3)
            challenge = {**await world.challenge(), "boot_log": "full"}
            fallen = await world.post("evidence", booted.evidence(challenge))
            assert fallen["standing"] == "untrusted"
            booted.log = log
            again = await world.round(booted)  # good evidence, of the boot in which it fell
            assert (again["verdict"], again["standing"], again["ear"]) == ("affirming", "untrusted", None)
            assert (await world.post("nodes/node-1/readmit", {}, status=409, headers=world.admin))[
                "code"
            ] == "readmit-needs-boot"
            booted.reboot()
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_a_program_measured_later_fells_the_node(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            extend_pcr(booted.tpm, 4)
            assert (await world.round(booted))["standing"] == "untrusted"

    run(body)


def test_reference_sets_need_their_signer_and_a_newer_version(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            assert (await world.round(booted, status=503))["code"] == "reference-missing"
            foreign = generate_private_key(SECP256R1())
            assert (await world.reference(key=foreign, status=422))["code"] == "reference-signature"
            await world.reference(2)
            assert (await world.reference(1, status=422))["code"] == "reference-rollback"
            assert (await world.reference(2, days=31, status=409))["code"] == "reference-conflict"
            assert (await world.round(booted))["standing"] == "trusted"
            world.clock.advance(31 * 24 * 3600)
            assert (await world.round(booted, status=422))["code"] == "reference-expired"
            await world.reference(3)
            assert (await world.round(booted))["verdict"] == "affirming"

    run(body)


def test_what_the_database_does_not_take_of_one_node_is_refused_to_it_alone(run: Run, tpms: Any) -> None:
    """Rounds that wait at one moment are written together, and one that cannot be written takes no other with it."""

    async def body(world: Any) -> None:
        with tpms.booted() as bad, tpms.booted("node-2", 1) as good:
            await world.ready_node(bad)
            await world.ready_node(good)
            extend_pcr(bad.tpm, 4)
            evidence, others = bad.evidence(await world.challenge()), good.evidence(await world.challenge("node-2"))
            parts = [hashlib.sha256(base64.b64decode(evidence[name])).digest() for name in ("quote", "signature")]
            sha256 = hashlib.sha256(b"".join([*parts, hashlib.sha256(bad.log).digest()])).hexdigest()
            taken = EvidenceRow(sha256=sha256, node="node-1", boot_log_sha256="", content="{}", kept_at=world.clock())

            async def occupy(session: Any) -> None:
                session.add(taken)

            await world.service._store.write(occupy)
            bodies = (evidence, others, evidence)
            async with world.writer_held():
                asked = [asyncio.create_task(world.http.post("/attest/v1/evidence", json=one)) for one in bodies]
                await asyncio.wait(asked, timeout=0.3)
            assert [answer.status_code for answer in await asyncio.gather(*asked)] == [500, 200, 500]
            assert (await world.get("nodes/node-1"))["standing"] == "trusted"
            assert (await world.get("nodes/node-2"))["rounds"] == 2
            await world.service._store.write(lambda session: session.execute(delete(EvidenceRow)))
            assert (await world.post("evidence", evidence))["standing"] == "untrusted"

    run(body)


def test_bodies_beyond_the_cap_are_refused_while_they_are_read(run: Run) -> None:
    async def body(world: Any) -> None:
        answer = await world.http.post("/attest/v1/evidence", content=b"[" * (1024 * 1024 + 1))
        assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")

    run(body)


def flipped(text: str, at: int) -> str:
    """Base64 of the same bytes, with one bit changed."""
    return base64.b64encode(flip_byte(base64.b64decode(text), at)).decode()
