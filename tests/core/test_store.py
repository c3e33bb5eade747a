"""The store on both databases: what is written, what is undone, and that concurrent works keep apart."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core import audit
from umec_core.audit import AuditEntry, AuditGap, AuditLog, AuditRewritten, verify_export
from umec_core.store import Store, StoreClosed, StoreUrlInvalid, serialise

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def opened(url: str, migrations: Path, schema: Any) -> Callable[..., None]:
    def runner(body: Callable[[Store], Awaitable[None]]) -> None:
        async def within() -> None:
            store = await Store.open(url, migrations=migrations)
            try:
                for kind in (schema.Thing, schema.Box, schema.Audit):
                    await store.write(lambda session, kind=kind: session.execute(delete(kind)))
                await body(store)
            finally:
                await store.close()

        asyncio.run(within())

    return runner


@pytest.fixture
def add(schema: Any) -> Callable[[Store, str], Awaitable[str]]:
    async def adding(store: Store, name: str) -> str:
        async def work(session: AsyncSession) -> str:
            session.add(schema.Thing(name=name, at=NOW))
            await session.flush()
            return name

        return await store.write(work)

    return adding


@pytest.fixture
def names(schema: Any) -> Callable[[Store], Awaitable[list[str]]]:
    async def reading(store: Store) -> list[str]:
        async with store.read() as session:
            return list(await session.scalars(select(schema.Thing.name).order_by(schema.Thing.name)))

    return reading


def test_a_work_that_raises_is_undone_alone(opened: Any, add: Any, names: Any, schema: Any) -> None:
    async def body(store: Store) -> None:
        async def failing(session: AsyncSession) -> None:
            session.add(schema.Thing(name="half", at=None))
            await session.flush()
            raise LookupError("changed its mind")

        works = [add(store, "a"), add(store, "a"), store.write(failing), add(store, "b"), add(store, "c")]
        results = await asyncio.gather(*works, return_exceptions=True)
        assert {type(result) for result in results[:2]} == {str, IntegrityError}  # PostgreSQL keeps no order here
        assert [type(result) for result in results[2:]] == [LookupError, str, str]
        assert await names(store) == ["a", "b", "c"]

    opened(body)


def test_a_result_is_there_after_its_commit_only(opened: Any, add: Any, names: Any) -> None:
    async def body(store: Store) -> None:
        async def check(name: str) -> bool:
            await add(store, name)
            return name in await names(store)

        assert all(await asyncio.gather(*(check(f"n{number}") for number in range(50))))

    opened(body)


def test_times_come_back_exactly_and_in_utc(opened: Any, add: Any, schema: Any) -> None:
    async def body(store: Store) -> None:
        await add(store, "a")
        async with store.read() as session:
            assert await session.scalar(select(schema.Thing.at)) == NOW
            later = select(func.count()).where(schema.Thing.at > NOW - timedelta(microseconds=1))
            assert await session.scalar(later) == 1

    opened(body)


def test_reading_changes_nothing(opened: Any, names: Any, schema: Any) -> None:
    async def body(store: Store) -> None:
        async with store.read() as session:
            session.add(schema.Thing(name="a", at=None))
            await session.flush()
        assert await names(store) == []

    opened(body)


def test_the_version_is_another_one_after_every_commit_of_anybody(
    sqlite: str, postgresql: str, migrations: Path, add: Any
) -> None:
    async def body() -> None:
        store, other = await Store.open(sqlite, migrations=migrations), await Store.open(sqlite, migrations=migrations)
        versions = [store.version()]
        for writer in (store, other, other):
            await add(writer, f"thing-{len(versions)}")
            versions.append(store.version())
            async with store.read() as session:
                await session.execute(select(1))
            assert store.version() == versions[-1]
        assert None not in versions
        assert len(set(versions)) == len(versions)
        await store.close()
        await other.close()
        remote = await Store.open(postgresql, migrations=migrations)
        assert remote.version() is None
        await remote.close()

    asyncio.run(body())


def test_a_closed_store_refuses(url: str, migrations: Path, add: Any) -> None:
    async def body() -> None:
        store = await Store.open(url, migrations=migrations)
        await store.close()
        with pytest.raises(StoreClosed) as refused:
            await add(store, "late")
        assert refused.value.code == "store-closed"

    asyncio.run(body())


def test_opening_twice_migrates_once(url: str, migrations: Path) -> None:
    async def body() -> None:
        stores = await asyncio.gather(*(Store.open(url, migrations=migrations) for _ in range(3)))
        for store in stores:
            await store.close()

    asyncio.run(body())


def test_numbers_are_given_without_gaps_to_concurrent_writers(opened: Any, schema: Any) -> None:
    async def body(store: Store) -> None:
        async def number(session: AsyncSession) -> int:
            await serialise(session, "things")
            last = await session.scalar(select(func.max(schema.Thing.id))) or 0
            await asyncio.sleep(0.001)
            session.add(schema.Thing(id=last + 1, name=f"t{last + 1}", at=None))
            await session.flush()
            return int(last + 1)

        assert sorted(await asyncio.gather(*(store.write(number) for _ in range(20)))) == list(range(1, 21))

    opened(body)


def test_an_audit_log_of_concurrent_writers_is_whole(opened: Any, schema: Any) -> None:
    key = generate_private_key(SECP256R1())

    async def body(store: Store) -> None:
        log = AuditLog(schema.Audit, key, "umec/test")

        async def entry(number: int) -> None:
            async def work(session: AsyncSession) -> None:
                await log.append(session, actor="a", action="do", subject=f"s{number}", outcome="done", now=NOW)
                if number % 5 == 0:
                    raise LookupError

            await store.write(work)

        await asyncio.gather(*(entry(number) for number in range(20)), return_exceptions=True)
        async with store.read() as session:
            export = await log.export(session)
        assert verify_export(export, key.public_key()).size == 16

    opened(body)


def test_a_long_audit_log_is_exported_in_pages_that_are_one_log_also_while_it_grows(
    opened: Any, schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "EXPORTED", 4)
    key = generate_private_key(SECP256R1())

    async def body(store: Store) -> None:
        log = AuditLog(schema.Audit, key, "umec/test")

        async def add(number: int) -> None:
            entries = [AuditEntry(actor="a", action="do", subject="s", outcome="done", now=NOW)] * number

            async def work(session: AsyncSession) -> None:
                await log.append_all(session, entries)

            await store.write(work)

        async def page(after: int) -> dict[str, Any]:
            async with store.read() as session:
                return await log.export(session, after=after)

        await add(8)
        first = await page(0)
        assert (len(first["entries"]), first["next"]) == (4, 4)
        with pytest.raises(AuditGap):
            verify_export(first, key.public_key())
        assert "next" not in await page(4)
        await add(1)
        second = await page(4)
        assert second["next"] == 8
        last = await page(8)
        assert ([one["index"] for one in last["entries"]], "next" in last) == ([8], False)
        whole = {**last, "entries": [*first["entries"], *second["entries"], *last["entries"]]}
        assert verify_export(whole, key.public_key()).size == 9
        for beyond in (9, 2**53 - 1):
            assert (await page(beyond))["entries"] == []
            assert "next" not in await page(beyond)

    opened(body)


def test_files_are_private(sqlite: str, migrations: Path, tmp_path: Path, add: Any) -> None:
    async def body() -> None:
        store = await Store.open(sqlite, migrations=migrations)
        await add(store, "a")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "db").iterdir()}
        assert set(modes) >= {"test.db", "test.db-wal"}
        assert set(modes.values()) == {0o600}
        await store.close()

    mask = os.umask(0)
    try:
        asyncio.run(body())
    finally:
        os.umask(mask)


def test_a_cancelled_caller_blocks_nobody(sqlite: str, migrations: Path, add: Any, names: Any) -> None:
    async def body() -> None:
        store = await Store.open(sqlite, migrations=migrations)
        task = asyncio.create_task(add(store, "gone"))
        await asyncio.sleep(0)
        task.cancel()
        await add(store, "b")
        assert "b" in await names(store)
        await store.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    "wrong", ["sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite://", "sqlite:///x.db", "mysql://host/x", "nonsense"]
)
def test_other_urls_are_refused(wrong: str, migrations: Path) -> None:
    with pytest.raises(StoreUrlInvalid) as refused:
        asyncio.run(Store.open(wrong, migrations=migrations))
    assert refused.value.code == "store-url-invalid"


@pytest.mark.parametrize(("kept", "new"), [(0, 0), (3, 0), (3, 2), (4, 1), (3, 6)])
def test_an_audit_log_whose_database_lost_entries_is_signed_as_it_is(
    opened: Any, schema: Any, kept: int, new: int
) -> None:
    """A failover to a standby that lacked the last transactions, below a process that goes on."""
    key = generate_private_key(SECP256R1())

    async def body(store: Store) -> None:
        log = AuditLog(schema.Audit, key, "umec/test")

        async def add(subject: str) -> None:
            async def work(session: AsyncSession) -> None:
                await log.append(session, actor="a", action="do", subject=subject, outcome="done", now=NOW)

            await store.write(work)

        async def lose(session: AsyncSession) -> None:
            await session.execute(delete(schema.Audit).where(schema.Audit.index >= kept))

        for number in range(5):
            await add(f"old-{number}")
        async with store.read() as session:
            before = await log.checkpoint(session)
        await store.write(lose)
        for number in range(new):
            await add(f"new-{number}")
        async with store.read() as session:
            exported = await log.export(session)
        assert verify_export(exported, key.public_key()).size == kept + new
        with pytest.raises(AuditGap if kept + new < 5 else AuditRewritten):
            verify_export(exported, key.public_key(), before)  # who saw more before can show it

    opened(body)
