"""Refusals of those who proved themselves are all written, of strangers so many and no more; the rest is counted."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from sqlalchemy import func, select

from umec_core import refusals as module
from umec_core.audit import AuditLog
from umec_core.errors import Conflict, Forbidden
from umec_core.refusals import MOST_OF_ADDRESS, MOST_OF_ALL, Refusals
from umec_core.store import Store

NOW = datetime(2026, 11, 22, 3, 0, 30, tzinfo=UTC)
NEXT = NOW + timedelta(seconds=30)
ERROR = Conflict("no")


@pytest.fixture
def play(sqlite, migrations, schema):
    """Run a scenario with a recorder and what reads the log's entries."""

    def run(scenario):
        async def go():
            store = await Store.open(sqlite, migrations=migrations)
            try:
                log = AuditLog(schema.Audit, generate_private_key(SECP256R1()), "umec/test")

                async def entries():
                    async with store.read() as session:
                        return (await log.export(session))["entries"]

                await scenario(Refusals(store, log, service="tester"), entries, store)
            finally:
                await store.close()

        asyncio.run(go())

    return run


async def knock(refusals, address, times=1, *, now=NOW, error=ERROR):
    for _ in range(times):
        await refusals.stranger("door.open", "somebody", error, now, address=address)


def test_each_address_has_its_own_quota_and_the_rest_is_counted_once(play):
    async def scenario(refusals, entries, _):
        await knock(refusals, "192.0.2.1", MOST_OF_ADDRESS + 2)
        await knock(refusals, "192.0.2.1", error=Forbidden("no"))
        await knock(refusals, "192.0.2.2")
        found = await entries()
        assert len(found) == MOST_OF_ADDRESS + 1
        assert {name: found[-1][name] for name in ("actor", "action", "subject", "outcome", "code", "facts")} == {
            "actor": "unauthenticated",
            "action": "door.open",
            "subject": "somebody",
            "outcome": "refused",
            "code": "conflict",
            "facts": {"address": "192.0.2.2"},
        }
        await refusals.summarise(NOW + timedelta(seconds=29))
        assert len(await entries()) == MOST_OF_ADDRESS + 1
        await refusals.summarise(NEXT)
        last = (await entries())[-1]
        assert (last["actor"], last["action"], last["code"]) == ("tester", "refusal.unlogged", "too-many")
        codes = {"door.open conflict": 2, "door.open forbidden": 1}
        assert last["facts"] == {"count": 3, "addresses": 1, "codes": codes}
        # Told once; and who was silenced is heard again.
        await refusals.summarise(NEXT, early=True)
        await knock(refusals, "192.0.2.1", now=NEXT)
        assert (await entries())[-1]["facts"] == {"address": "192.0.2.1"}
        assert len(await entries()) == MOST_OF_ADDRESS + 3

    play(scenario)


def test_many_addresses_have_a_quota_together_and_those_that_are_known_are_not_in_it(play, monkeypatch):
    monkeypatch.setattr(module, "MOST_OF_ALL", 3)
    monkeypatch.setattr(module, "MOST_ADDRESSES", 2)

    async def scenario(refusals, entries, _):
        for number in range(8):
            await knock(refusals, f"192.0.2.{number}")
        assert len(refusals._written) == 3
        await refusals.known("door.open", "door", ERROR, NOW, actor="operator")
        found = await entries()
        assert [one["actor"] for one in found] == ["unauthenticated"] * 3 + ["operator"]
        await refusals.summarise(NOW, early=True)
        assert (await entries())[-1]["facts"] == {
            "count": 5,
            "addresses": 2,
            "codes": {"door.open conflict": 5},
        }

    play(scenario)


def test_of_21_addresses_the_last_is_counted_and_who_is_known_is_written(play):
    async def scenario(refusals, entries, _):
        for number in range(MOST_OF_ALL // MOST_OF_ADDRESS):
            await knock(refusals, f"192.0.2.{number}", MOST_OF_ADDRESS)
        await knock(refusals, "198.51.100.7", error=Forbidden("no"))
        await refusals.known("door.open", "door", ERROR, NOW, actor="operator")
        await refusals.summarise(NEXT)
        found = await entries()
        assert len(found) == MOST_OF_ALL + 2
        assert [one["actor"] for one in found[-2:]] == ["operator", "tester"]
        assert found[-1]["facts"] == {"count": 1, "addresses": 1, "codes": {"door.open forbidden": 1}}
        await knock(refusals, "198.51.100.7", now=NEXT)
        assert (await entries())[-1]["facts"] == {"address": "198.51.100.7"}

    play(scenario)


def test_a_new_minute_is_told_before_its_first_refusal(play):
    async def scenario(refusals, entries, _):
        await knock(refusals, "192.0.2.1", MOST_OF_ADDRESS + 1)
        await knock(refusals, "192.0.2.1", now=NEXT)
        assert [one["action"] for one in (await entries())[-2:]] == ["refusal.unlogged", "door.open"]

    play(scenario)


def test_what_belongs_to_a_refusal_is_done_with_it_or_not_at_all(play, schema):
    async def scenario(refusals, entries, store):
        async def use_up(session):
            session.add(schema.Thing(name="used"))

        await refusals.known("door.open", "d" * 600, ERROR, NOW, actor="operator", also=use_up)
        with pytest.raises(Exception, match="UNIQUE"):
            await refusals.known("door.open", "door", ERROR, NOW, actor="operator", also=use_up)
        assert [one["subject"] for one in await entries()] == ["d" * 512]
        async with store.read() as session:
            assert await session.scalar(select(func.count()).select_from(schema.Thing)) == 1

    play(scenario)
