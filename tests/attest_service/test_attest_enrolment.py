"""Enrolment over HTTP: which TPM becomes which node, and what does not."""

import asyncio
import base64
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from umec_attest.testing.image import Tamper

Run = Callable[..., None]


def test_a_ticket_approves_and_serves_once(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            ticket = await world.ticket(booted.node)
            assert await world.enrol(booted.node, ticket=ticket) == {
                "node": "node-1",
                "standing": "pending",
                "approved": True,
            }
            used = await world.post("enrolments", booted.node.enrolment(ticket=ticket), status=403)
            assert used["code"] == "ticket-used"
            assert (await world.enrol(booted.node, ticket=await world.ticket(booted.node)))["approved"]

    run(body)


def test_without_a_ticket_an_operator_approves(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.reference()
            assert not (await world.enrol(booted.node))["approved"]
            assert (await world.round(booted, status=409))["code"] == "node-assignment-missing"
            path, who = "nodes/node-1/approve", world.admin
            for half in ({}, {"tenant": "acme"}, {"image": "edge-node"}):
                assert (await world.post(path, half, status=409, headers=who))["code"] == "node-assignment-missing"
            await world.post(path, {"tenant": "acme", "image": "edge-node"}, headers=who)
            assert (await world.post(path, {}, status=409, headers=who))["code"] == "standing-conflict"
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_only_what_waits_is_approved(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node)
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            whole = {"tenant": "acme", "image": "edge-node"}
            refused = await world.post("nodes/node-1/approve", whole, status=409, headers=world.admin)
            assert refused["code"] == "standing-conflict"

    run(body)


def test_a_ticket_that_ends_before_the_activation_is_none(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            for wait, status in ((60, 403), (59, 200)):
                ticket = await world.ticket(booted.node, lifetime_seconds=60)
                begun = await world.post("enrolments", booted.node.enrolment(ticket=ticket), status=201)
                proof = await asyncio.to_thread(booted.node.activation, begun)
                world.clock.advance(wait)
                answer = await world.post(f"enrolments/{begun['enrolment']}/activation", proof, status=status)
                assert answer.get("code") == ("ticket-expired" if status == 403 else None)

    run(body)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"asset": "node-9"}, "ticket-node-mismatch"),
        ({"ek_sha256": "00" * 32}, "ticket-ek-mismatch"),
        ({"lifetime_seconds": 1}, "ticket-expired"),
        (None, "ticket-unknown"),
    ],
)
def test_tickets_that_let_nobody_in(run: Run, tpms: Any, changes: dict[str, Any] | None, code: str) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            ticket = "bm9ib2R5" if changes is None else await world.ticket(booted.node, **changes)
            world.clock.advance(1)
            refused = await world.post("enrolments", booted.node.enrolment(ticket=ticket), status=403)
            assert refused["code"] == code
            assert ("enrolment.begin", "refused", code) in await world.audited()
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))

    run(body)


def test_one_tpm_is_one_node_and_nobody_takes_a_node_over(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-1", 1) as thief:
            await world.ready_node(booted)
            request = booted.node.enrolment()
            assert (await world.post("enrolments", request, status=409))["code"] == "node-enrolled"
            other = {**request, "node": "node-7"}
            assert (await world.post("enrolments", other, status=409))["code"] == "ek-enrolled-elsewhere"
            assert (await world.post("enrolments", thief.node.enrolment(), status=409))["code"] == "node-other-ek"
            ticket = await world.ticket(thief.node)  # not even by an operator's mistake
            mistaken = thief.node.enrolment(ticket=ticket)
            assert (await world.post("enrolments", mistaken, status=409))["code"] == "node-other-ek"
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_a_name_that_a_stranger_asked_for_is_free_for_whom_the_operator_names(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-1", 1) as stranger:
            assert not (await world.enrol(stranger.node))["approved"]
            assert (await world.ready_node(booted))["standing"] == "trusted"

    run(body)


def test_an_activation_is_single_use_and_has_a_deadline(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            begun, proof = await begin(world, booted)
            path = f"enrolments/{begun['enrolment']}/activation"
            wrong = {**proof, "secret": base64.b64encode(secrets.token_bytes(32)).decode()}
            assert (await world.post(path, wrong, status=422))["code"] == "activation-secret-mismatch"
            assert (await world.post(path, proof, status=409))["code"] == "activation-used"

            begun, proof = await begin(world, booted)
            world.clock.advance(120)
            late = f"enrolments/{begun['enrolment']}/activation"
            assert (await world.post(late, proof, status=422))["code"] == "activation-expired"
            unknown = f"enrolments/{'0' * 32}/activation"
            assert (await world.post(unknown, proof, status=404))["code"] == "enrolment-unknown"

            begun, proof = await begin(world, booted)
            world.clock.advance(119)
            await world.post(f"enrolments/{begun['enrolment']}/activation", proof)

    run(body)


def test_the_secret_of_another_node_opens_nothing(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            begun, proof = await begin(world, booted)
            _, of_other = await begin(world, other)
            path = f"enrolments/{begun['enrolment']}/activation"
            wrong = {**proof, "secret": of_other["secret"]}
            assert (await world.post(path, wrong, status=422))["code"] == "activation-secret-mismatch"
            begun, proof = await begin(world, booted)
            await world.post(f"enrolments/{begun['enrolment']}/activation", proof)

    run(body)


def test_the_node_key_is_certified_for_this_very_enrolment(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            _, old = await begin(world, booted)
            begun, proof = await begin(world, booted)
            stale = {**old, "secret": proof["secret"]}
            path = f"enrolments/{begun['enrolment']}/activation"
            assert (await world.post(path, stale, status=422))["code"] == "certify-nonce-mismatch"
            begun, proof = await begin(world, booted)
            await world.post(f"enrolments/{begun['enrolment']}/activation", proof)

    run(body)


def test_a_tpm_without_certificate_needs_somebody_who_names_it(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            request = {**booted.node.enrolment(), "ek_certificate": None, "ek_chain": []}
            assert (await world.post("enrolments", request, status=422))["code"] == "ek-trust-missing"
            request["ticket"] = await world.ticket(booted.node)
            await world.post("enrolments", request, status=201)

    run(body)


def test_a_certificate_by_an_unknown_vendor_is_refused(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            request = booted.node.enrolment(ticket=await world.ticket(booted.node))
            refused = await world.post("enrolments", request, status=422)
            assert refused["code"] == "ek-certificate-path"

    run(body, ek_roots=None)


def test_revocation_ends_with_a_ticket_made_after_it(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            old = await world.ticket(booted.node)
            evidence = booted.evidence(await world.challenge())
            world.clock.advance(1)
            await world.post("nodes/node-1/revoke", {"reason": "stolen"}, headers=world.admin)
            assert (await world.post("evidence", evidence, status=403))["code"] == "node-revoked"
            assert (await world.post("challenges", {"node": "node-1"}, status=403))["code"] == "node-revoked"
            again = booted.node.enrolment(ticket=old)
            assert (await world.post("enrolments", again, status=403))["code"] == "node-revoked"
            world.clock.advance(1)
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            assert (await world.round(booted))["standing"] == "trusted"
            assert (await world.get("nodes/node-1"))["generation"] == 5

    run(body)


def test_a_ticket_from_before_a_quarantine_does_not_lift_it(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            old = await world.ticket(booted.node)
            begun = await world.post("enrolments", booted.node.enrolment(ticket=old), status=201)
            proof = await asyncio.to_thread(booted.node.activation, begun)
            world.clock.advance(1)
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            late = await world.post(f"enrolments/{begun['enrolment']}/activation", proof, status=403)
            assert late["code"] == "ticket-outdated"
            again = booted.node.enrolment(ticket=old)
            assert (await world.post("enrolments", again, status=403))["code"] == "ticket-outdated"
            assert (await world.get("nodes/node-1"))["standing"] == "quarantined"
            world.clock.advance(1)
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_other_keys_do_not_bring_an_untrusted_node_back_within_one_boot(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            old = await world.ticket(booted.node)
            booted.reboot(Tamper.CMDLINE)
            assert (await world.round(booted, status=422))["code"] == "boot-log-required"
            world.clock.advance(1)
            assert (await world.round(booted))["standing"] == "untrusted"
            again = booted.node.enrolment(ticket=old)
            assert (await world.post("enrolments", again, status=403))["code"] == "ticket-outdated"
            world.clock.advance(1)
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            refused = await world.post("nodes/node-1/readmit", {}, headers=world.admin)
            assert refused["standing"] == "untrusted"  # it is remembered that it fell
            assert (await world.round(booted))["standing"] == "untrusted"
            booted.reboot()
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


async def begin(world: Any, booted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Begin an enrolment and open what the verifier sealed."""
    begun = await world.post("enrolments", booted.node.enrolment(), status=201)
    return begun, await asyncio.to_thread(booted.node.activation, begun)
