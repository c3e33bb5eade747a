"""What changes while evidence is judged, what strangers may fill, what is kept, and what a steady round costs."""

import asyncio
import base64
import secrets
import shutil
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.agent.evidence import MAX_BOOT_LOG
from umec_attest.service.composition import MIGRATIONS
from umec_attest.service.enrolments import service as enrolments
from umec_attest.service.enrolments.service import MAX_OPEN_PER_ADDRESS
from umec_attest.service.tables import EnrolmentRow, NodeRow, ReferenceRow, StandingRow, TicketRow
from umec_attest.service.tending import HISTORY_KEPT
from umec_attest.service.wire import MAX_LARGE
from umec_core.http import MAX_BODY, create_app
from umec_core.refusals import MOST_OF_ADDRESS
from umec_core.store import Store

Run = Callable[..., None]


async def counted(world: Any, *criteria: Any) -> int:
    async with world.service._store.read() as session:
        return int(await session.scalar(select(func.count()).where(*criteria)) or 0)


def from_address(world: Any, address: str) -> httpx.AsyncClient:
    app = create_app("attest", world.service.routers)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="https://edge.example")


async def new_reference(world: Any) -> None:
    await world.reference(2)


async def withdrawn_reference(world: Any) -> None:
    await world.service._store.write(lambda session: session.execute(delete(ReferenceRow)))


async def another_image(world: Any) -> None:
    async def work(session: AsyncSession) -> None:
        (await session.get_one(NodeRow, "node-1")).image = "another-image"

    await world.service._store.write(work)


async def another_class(world: Any) -> None:
    async def work(session: AsyncSession) -> None:
        (await session.get_one(NodeRow, "node-1")).node_class = "open-box"

    await world.service._store.write(work)


async def other_keys(world: Any) -> None:
    async def work(session: AsyncSession) -> None:
        (await session.get_one(NodeRow, "node-1")).ak_public = b"another"

    await world.service._store.write(work)


async def revoked(world: Any) -> None:
    await world.post("nodes/node-1/revoke", {}, headers=world.admin)


async def nothing(world: Any) -> None:
    await world.service._store.write(lambda session: session.execute(select(1)))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (new_reference, "evidence-stale"),
        (withdrawn_reference, "evidence-stale"),
        (another_image, "evidence-stale"),
        (another_class, "evidence-stale"),
        (other_keys, "nonce-superseded"),
        (revoked, "node-revoked"),
        (nothing, None),
    ],
)
def test_what_was_decided_while_evidence_was_judged_counts(
    run: Run, tpms: Any, hand_in: Any, change: Callable[[Any], Awaitable[None]], code: str | None
) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = booted.evidence(await world.challenge())
            async with world.writer_held():
                deciding = asyncio.create_task(change(world))
                await hand_in(world.service._store, deciding)
                submitting = asyncio.create_task(world.http.post("/attest/v1/evidence", json=evidence))
                await hand_in(world.service._store, submitting)
            await deciding
            answer = await submitting
            assert answer.json().get("code") == code, answer.text
            if code is not None:
                assert (await world.get("nodes/node-1"))["rounds"] == 1
                assert ("evidence.submit", "refused", code) in await world.audited()
            if change is new_reference:
                assert (await world.round(booted))["verdict"] == "affirming"

    run(body)


def test_strangers_push_no_refusal_out_of_the_log_and_what_is_not_logged_is_counted(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            more = 7
            async with from_address(world, "198.51.100.9") as stranger:
                garbage = {**booted.evidence(await world.challenge()), "challenge": "AA"}
                for _ in range(MOST_OF_ADDRESS + more):
                    answer = await stranger.post("/attest/v1/evidence", json=garbage)
                    assert answer.json()["code"] == "nonce-unknown"
            path, who = "nodes/node-1/readmit", world.admin
            for _ in range(MOST_OF_ADDRESS + 1):  # an operator is no stranger
                await world.post(path, {}, status=409, headers=who)
            evidence = {**garbage, "node": "nobody"}
            assert (await world.post("evidence", evidence, status=404))["code"] == "node-unknown"
            found = await world.audited()
            assert found.count(("evidence.submit", "refused", "nonce-unknown")) == MOST_OF_ADDRESS
            assert found.count(("node.readmit", "refused", "standing-conflict")) == MOST_OF_ADDRESS + 1
            assert ("evidence.submit", "refused", "node-unknown") in found
            world.clock.advance(60)
            await world.service.tend()
            last = (await world.get("audit"))["entries"][-1]
            assert (last["action"], last["facts"]["count"], last["facts"]["addresses"]) == ("refusal.unlogged", more, 1)
            assert last["facts"]["codes"] == {"evidence.submit nonce-unknown": more}
            await world.service.tend()
            assert (await world.get("audit"))["entries"][-1] == last

    run(body)


def test_one_tpm_has_one_enrolment_under_way(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            begun = [
                await world.post("enrolments", {**booted.node.enrolment(), "node": f"node-{number}"}, status=201)
                for number in range(3)
            ]
            assert await counted(world, EnrolmentRow.used_at.is_(None)) == 1
            activation = booted.node.activation(begun[-1])
            for old in begun[:-1]:
                path = f"enrolments/{old['enrolment']}/activation"
                assert (await world.post(path, activation, status=404))["code"] == "enrolment-unknown"
            assert (await world.post(f"enrolments/{begun[-1]['enrolment']}/activation", activation))["node"] == "node-2"

    run(body)


def test_who_knows_an_ek_cannot_replace_the_enrolment_that_a_ticket_began(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            ticket = await world.ticket(booted.node)
            begun = await world.post("enrolments", booted.node.enrolment(ticket=ticket), status=201)
            async with from_address(world, "198.51.100.9") as stranger:  # an EK and its certificate are no secret
                answer = await stranger.post("/attest/v1/enrolments", json=booted.node.enrolment())
                assert answer.status_code == 201
            path = f"enrolments/{begun['enrolment']}/activation"
            assert (await world.post(path, booted.node.activation(begun)))["approved"]

    run(body)


def test_one_address_cannot_stop_the_enrolment_of_others(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            occupied = await world.post("enrolments", booted.node.enrolment(), status=201)

            async def work(session: AsyncSession) -> None:
                row = await session.get_one(EnrolmentRow, occupied["enrolment"])
                names = [column.name for column in EnrolmentRow.__table__.columns]
                kept = {name: getattr(row, name) for name in names}
                await session.delete(row)
                for _ in range(MAX_OPEN_PER_ADDRESS):  # as many TPMs as somebody wants to buy
                    fresh = {"id": secrets.token_hex(16), "ek_sha256": secrets.token_hex(32)}
                    session.add(EnrolmentRow(**{**kept, **fresh, "address": "198.51.100.9"}))

            await world.service._store.write(work)
            async with from_address(world, "198.51.100.9") as stranger:
                answer = await stranger.post("/attest/v1/enrolments", json=booted.node.enrolment())
                assert (answer.status_code, answer.json()["code"]) == (429, "enrolments-busy")
                ticket = await world.ticket(booted.node)
                answer = await stranger.post("/attest/v1/enrolments", json=booted.node.enrolment(ticket=ticket))
                assert answer.status_code == 201  # who has an operator's word does not wait behind strangers
            await world.enrol(booted.node)

    run(body)


def test_all_addresses_together_cannot_fill_the_verifier(run: Run, tpms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(world: Any) -> None:
        monkeypatch.setattr(enrolments, "MAX_OPEN", 1)
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.post("enrolments", booted.node.enrolment(), status=201)
            async with from_address(world, "198.51.100.9") as stranger:
                answer = await stranger.post("/attest/v1/enrolments", json=other.node.enrolment())
                assert (answer.status_code, answer.json()["code"]) == (429, "enrolments-busy")
                monkeypatch.setattr(enrolments, "MAX_OPEN", 2)
                answer = await stranger.post("/attest/v1/enrolments", json=other.node.enrolment())
                assert answer.status_code == 201

    run(body)


def test_what_is_over_is_not_kept(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            unused = await world.ticket(booted.node)
            for move in ("quarantine", "readmit", "quarantine"):
                await world.post(f"nodes/node-1/{move}", {}, headers=world.admin)
            full = await world.statement()
            before = (await world.get("nodes/node-1/explain"))["history"]
            assert len(before) == 5
            world.clock.advance(timedelta(days=1).total_seconds())
            await world.service.tend()
            assert (await world.get("nodes/node-1/explain"))["history"] == before
            world.clock.advance(HISTORY_KEPT.total_seconds())
            await world.service.tend()
            assert await counted(world, StandingRow.node == "node-1") == 1
            assert await counted(world, TicketRow.node == "node-1") == 0
            assert await counted(world, EnrolmentRow.node == "node-1") == 0
            assert (await world.statement()).entries == full.entries  # the newest of each node is kept for ever
            assert (await world.get("nodes/node-1/explain"))["history"] == before[:1]
            request = booted.node.enrolment(ticket=unused)
            assert (await world.post("enrolments", request, status=403))["code"] == "ticket-unknown"

    run(body)


def test_the_largest_boot_log_passes_every_limit(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = {**booted.evidence(await world.challenge()), "boot_log_sha256": None}
            larger = {**evidence, "boot_log": base64.b64encode(bytes(MAX_LARGE + 1)).decode()}
            assert (await world.post("evidence", larger, status=400))["code"] == "invalid-input"
            largest = {**evidence, "boot_log": base64.b64encode(bytes(MAX_LARGE)).decode()}
            assert (await world.post("evidence", largest))["verdict"] == "contraindicated"
            assert MAX_BOOT_LOG == MAX_LARGE < MAX_BODY

    run(body)


def test_a_steady_round_signs_and_logs_nothing_anew(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            first = await world.ready_node(booted)
            before = await world.audited()
            steady = await world.round(booted)
            assert steady["ear"] == first["ear"]
            assert await world.audited() == before
            world.clock.advance(149)
            assert (await world.round(booted))["ear"] == first["ear"]
            world.clock.advance(2)  # half of its life is over
            renewed = (await world.round(booted))["ear"]
            assert renewed != first["ear"]
            assert (await world.round(booted))["ear"] == renewed
            await world.reference(2)
            changed = (await world.round(booted))["ear"]
            assert changed != renewed
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            assert (await world.round(booted))["ear"] is None
            await world.post("nodes/node-1/readmit", {}, headers=world.admin)
            assert (await world.round(booted))["ear"] not in {None, changed}
            issued = [entry for entry in await world.audited() if entry[0] == "result.issue"]
            assert len(issued) == 4

    run(body)


NODE_FROM_BEFORE = """
INSERT INTO node (id, ek_sha256, ek_public, ak_public, node_key_public, approved, standing, generation, reason,
                  changed_at, enrolled_at, rounds)
VALUES (:name, :name, x'', x'', x'', 1, 'trusted', 2, '', 0, 0, 1)
"""


def test_a_database_from_before_keeps_its_feed(tmp_path: Path) -> None:
    """The newest feed row of each node is found again by the migration that gives nodes a pointer to it."""
    former = tmp_path / "former" / "versions"
    former.mkdir(parents=True)
    shutil.copy(MIGRATIONS / "versions" / "0001_attest.py", former)
    url = f"sqlite+aiosqlite:///{tmp_path}/attest.db"

    async def body() -> None:
        store = await Store.open(url, migrations=former.parent)

        async def work(session: AsyncSession) -> None:
            for name in ("a", "b"):
                await session.execute(text(NODE_FROM_BEFORE), {"name": name})
            for name in ("a", "b", "a"):
                await session.execute(
                    text("INSERT INTO standing (node, standing, generation, changed_at) VALUES (:name, 'x', 1, 0)"),
                    {"name": name},
                )

        await store.write(work)
        await store.close()
        store = await Store.open(url, migrations=MIGRATIONS)
        async with store.read() as session:
            found = (await session.execute(select(NodeRow.id, NodeRow.last_seq).order_by(NodeRow.id))).all()
        await store.close()
        assert [tuple(row) for row in found] == [("a", 3), ("b", 2)]

    asyncio.run(body())
