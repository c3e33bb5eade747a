"""The group-commit writer when a work does not merely fail: cancelled from within, or one of too many."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core import writer
from umec_core.store import Store, StoreClosed
from umec_core.writer import StoreBusy


@pytest.fixture
def opened(sqlite: str, migrations: Path) -> Callable[[Callable[[Store], Awaitable[None]]], None]:
    def runner(body: Callable[[Store], Awaitable[None]]) -> None:
        async def within() -> None:
            store = await Store.open(sqlite, migrations=migrations)
            try:
                async with asyncio.timeout(10):
                    await body(store)
            finally:
                await store.close()

        asyncio.run(within())

    return runner


def adding(schema: Any, name: str) -> Callable[[AsyncSession], Awaitable[str]]:
    async def work(session: AsyncSession) -> str:
        session.add(schema.Thing(name=name, at=None))
        await session.flush()
        return name

    return work


async def names(store: Store, schema: Any) -> list[str]:
    async with store.read() as session:
        return list(await session.scalars(select(schema.Thing.name).order_by(schema.Thing.name)))


def test_a_work_that_is_cancelled_from_within_is_undone_alone(opened: Any, schema: Any) -> None:
    async def cancelled(session: AsyncSession) -> None:
        await adding(schema, "half")(session)
        raise asyncio.CancelledError

    async def body(store: Store) -> None:
        works = [adding(schema, "a"), cancelled, adding(schema, "b")]
        results = await asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)
        assert [type(result) for result in results] == [str, asyncio.CancelledError, str]
        assert await store.write(adding(schema, "c")) == "c"
        assert await names(store, schema) == ["a", "b", "c"]

    opened(body)


def test_what_is_no_exception_of_a_work_ends_the_writer(opened: Any, schema: Any) -> None:
    class Interrupted(BaseException):
        pass

    async def interrupted(session: AsyncSession) -> None:
        await adding(schema, "half")(session)
        raise Interrupted

    async def body(store: Store) -> None:
        works = [adding(schema, "a"), interrupted, adding(schema, "b")]
        results = await asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)
        assert [type(result) for result in results] == [StoreClosed] * 3
        assert type(store._writes._task.exception()) is Interrupted
        assert await names(store, schema) == []

    opened(body)


def test_everybody_is_told_when_the_writer_itself_is_cancelled(opened: Any, schema: Any) -> None:
    async def body(store: Store) -> None:
        begun = asyncio.Event()

        async def endless(session: AsyncSession) -> None:
            await adding(schema, "half")(session)
            begun.set()
            await asyncio.sleep(3600)

        works = [adding(schema, "a"), endless, adding(schema, "b")]
        waiting = asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)
        await begun.wait()
        store._writes._task.cancel()
        assert {type(result) for result in await waiting} == {StoreClosed}
        with pytest.raises(StoreClosed):
            await store.write(adding(schema, "late"))
        assert await names(store, schema) == []

    opened(body)


def test_more_works_than_may_wait_are_refused(opened: Any, schema: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 3)

    async def body(store: Store) -> None:
        results = await asyncio.gather(
            *(store.write(adding(schema, f"n{number}")) for number in range(5)), return_exceptions=True
        )
        assert [type(result) for result in results] == [str, str, str, StoreBusy, StoreBusy]
        assert results[-1].code == "store-busy"
        assert await store.write(adding(schema, "later")) == "later"

    opened(body)
