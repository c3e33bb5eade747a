"""TPMs that an operator allowed: they enrol without a ticket, once, as that asset; others wait, or are refused."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from umec_attest.testing.image import Tamper

Run = Callable[..., None]
WORD = {"asset": "node-1", "tenant": "acme", "image": "edge-node"}


async def allow(world: Any, booted: Any, **changes: Any) -> dict[str, Any]:
    answer = await world.http.put(
        f"/attest/v1/allowed-tpms/{booted.node.ek_sha256}", json=WORD | changes, headers=world.admin
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def disallow(world: Any, booted: Any, *, status: int = 200) -> dict[str, Any]:
    path = f"/attest/v1/allowed-tpms/{booted.node.ek_sha256}"
    answer = await world.http.delete(path, headers=world.admin)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def unnamed(booted: Any, **members: Any) -> dict[str, Any]:
    """What a node asks with that knows neither its name nor a ticket."""
    body = {name: value for name, value in booted.node.enrolment().items() if name != "node"}
    return body | members


async def enrol(world: Any, booted: Any, **members: Any) -> dict[str, Any]:
    begun = await world.post("enrolments", unnamed(booted, **members), status=201)
    proof = await asyncio.to_thread(booted.node.activation, begun)
    return dict(await world.post(f"enrolments/{begun['enrolment']}/activation", proof))


async def refused(world: Any, booted: Any, status: int, **members: Any) -> str:
    return str((await world.post("enrolments", unnamed(booted, **members), status=status))["code"])


def own_name(booted: Any) -> str:
    return f"tpm-{booted.node.ek_sha256[:16]}"


def test_an_allowed_tpm_is_approved_at_once_under_the_name_that_the_operator_gave(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.reference()
            said = await allow(world, booted, **{"class": "open-box"})
            assert (said["node"], said["ek_sha256"]) == ("node-1", booted.node.ek_sha256)
            assert await enrol(world, booted) == {"node": "node-1", "standing": "pending", "approved": True}
            node = await world.get("nodes/node-1")
            assert (node["tenant"], node["image"], node["class"]) == ("acme", "edge-node", "open-box")
            assert node["reason"] == "enrolled as a TPM that an operator allowed"
            assert (await world.round(booted))["standing"] == "trusted"
            assert {("tpm.allow", "done", None), ("node.enrol", "done", None)} <= set(await world.audited())

    run(body)


def test_the_word_serves_one_enrolment(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await allow(world, booted)
            await enrol(world, booted)
            assert await refused(world, booted, 409) == "ek-enrolled-elsewhere"
            assert await refused(world, booted, 409, node="node-1") == "node-enrolled"
            await allow(world, booted)
            assert (await enrol(world, booted))["approved"]

    run(body)


def test_another_tpm_gets_nothing_by_it(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-1", 1) as thief:
            await allow(world, booted)
            assert await enrol(world, thief) == {"node": own_name(thief), "standing": "pending", "approved": False}
            begun = await world.post("enrolments", unnamed(booted), status=201)
            await enrol(world, booted)
            path = f"enrolments/{begun['enrolment']}/activation"
            late = await world.post(
                path, {"secret": "AA==", "certify_attest": "AA==", "certify_signature": "AA=="}, status=404
            )
            assert late["code"] == "enrolment-unknown"  # who knows an EK opens nothing, and the newer one replaced it
            assert (await world.get("nodes/node-1"))["ek_sha256"] == booted.node.ek_sha256

    run(body)


def test_the_operator_names_the_node_and_nobody_else(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await allow(world, booted)
            assert await refused(world, booted, 403, node="node-9") == "ticket-node-mismatch"
            assert (await enrol(world, booted, node="node-1"))["approved"]

    run(body)


def test_the_word_ends_with_its_time_and_may_be_taken_back(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            assert (await disallow(world, booted, status=404))["code"] == "tpm-not-allowed"
            for over in (lambda: world.clock.advance(60), None):
                await allow(world, booted, lifetime_seconds=60)
                begun = await world.post("enrolments", unnamed(booted), status=201)
                proof = await asyncio.to_thread(booted.node.activation, begun)
                if over is None:
                    assert (await disallow(world, booted))["node"] == "node-1"
                else:
                    over()
                late = await world.post(f"enrolments/{begun['enrolment']}/activation", proof, status=403)
                assert late["code"] == "ticket-expired"
                assert (await disallow(world, booted, status=404))["code"] == "tpm-not-allowed"
            assert await enrol(world, booted) == {"node": own_name(booted), "standing": "pending", "approved": False}

    run(body)


@pytest.mark.parametrize("change", ["taken back", "another image"])
def test_a_word_that_changes_while_an_enrolment_begins_counts_no_more(
    run: Run, tpms: Any, hand_in: Any, change: str
) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await allow(world, booted)
            for decision, begun in ((allow(world, booted), 201), (_changed(world, booted, change), 403)):
                async with world.writer_held():
                    deciding = asyncio.create_task(decision)
                    await hand_in(world.service._store, deciding)
                    beginning = asyncio.create_task(world.post("enrolments", unnamed(booted), status=begun))
                    await hand_in(world.service._store, beginning)
                said, _ = await beginning, await deciding
            assert said["code"] == "ticket-expired"

    run(body)


def _changed(world: Any, booted: Any, change: str) -> Any:
    return disallow(world, booted) if change == "taken back" else allow(world, booted, image="other-node")


def test_it_lifts_no_standing_that_is_newer(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await allow(world, booted)
            await world.ready_node(booted)  # by a ticket: the word is left
            booted.reboot(Tamper.CMDLINE)
            world.clock.advance(1)
            await world.round(booted, status=422)
            assert (await world.round(booted))["standing"] == "untrusted"
            assert await refused(world, booted, 403) == "ticket-outdated"
            world.clock.advance(1)
            await allow(world, booted)
            await enrol(world, booted)
            assert (await world.round(booted))["standing"] == "untrusted"  # it is the boot that fell
            booted.reboot()
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_it_vouches_for_a_tpm_without_certificate(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            bare = {"ek_certificate": None, "ek_chain": []}
            assert await refused(world, booted, 422, **bare) == "ek-trust-missing"
            await allow(world, booted)
            assert (await enrol(world, booted, **bare))["approved"]

    run(body)


def test_a_node_that_nobody_knows_waits_under_the_name_of_its_tpm(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.reference()
            name = (await enrol(world, booted))["node"]
            assert name == own_name(booted)
            booted.node.name = name
            assert (await world.round(booted, status=409))["code"] == "node-assignment-missing"
            whole = {"tenant": "acme", "image": "edge-node"}
            await world.post(f"nodes/{name}/approve", whole, headers=world.admin)
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_nobody_takes_the_name_of_another_tpm(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-1", 1) as stranger:
            assert await refused(world, stranger, 409, node=own_name(booted)) == "node-other-ek"
            assert (await enrol(world, stranger, node=own_name(stranger)))["node"] == own_name(stranger)

    run(body)


def test_a_site_may_refuse_whoever_it_does_not_know(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            # no work is done for strangers: what they show of certificates is not even looked at
            key = base64.b64encode(booted.node.ek.public).decode()
            odd = {"ek_certificate": "AAAA"}, {"iak": {"public": key, "certificate": "AAAA", "chain": []}}
            for named in ({}, {"node": "node-1"}, *odd):
                assert await refused(world, booted, 403, **named) == "ticket-required"
            await allow(world, booted)
            for named in odd:
                assert await refused(world, booted, 422, **named) != "ticket-required"
            assert (await enrol(world, booted))["approved"]
            assert (await world.enrol(booted.node, ticket=await world.ticket(booted.node)))["approved"]

    run(body, unknown_nodes="refuse")


def test_who_knows_an_allowed_ek_cannot_replace_the_enrolment_that_a_ticket_began(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await allow(world, booted)
            ticket = await world.ticket(booted.node)
            begun = await world.post("enrolments", booted.node.enrolment(ticket=ticket), status=201)
            proof = await asyncio.to_thread(booted.node.activation, begun)
            await world.post("enrolments", unnamed(booted), status=201)
            await world.post(f"enrolments/{begun['enrolment']}/activation", proof)

    run(body)


def test_a_malformed_word_is_refused(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            path = f"/attest/v1/allowed-tpms/{booted.node.ek_sha256}"
            for change in ({"asset": "../x"}, {"lifetime_seconds": 0}, {"lifetime_seconds": 10**9}, {"who": 1}):
                answer = await world.http.put(path, json=WORD | change, headers=world.admin)
                assert answer.status_code == 400, answer.text
            for other in ("ab", "AB" * 32):
                answer = await world.http.put(f"/attest/v1/allowed-tpms/{other}", json=WORD, headers=world.admin)
                assert answer.status_code == 400, answer.text
            await allow(world, booted)

    run(body)
