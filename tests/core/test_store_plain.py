"""Plain works: the same promises as for all others, from their BEGIN to their COMMIT in one thread."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, String, bindparam, column, literal_column, select, table, text, type_coerce
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core import store as store_module
from umec_core import writer
from umec_core.errors import UmecError
from umec_core.store import Store, StoreClosed, Timestamp, serialise_plain
from umec_core.testing import temporary_postgresql
from umec_core.writer import StoreBusy

MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision = "plain_0001"
down_revision = None
branch_labels = None
depends_on = None
def upgrade():
    op.create_table("note", sa.Column("name", sa.String, primary_key=True))
"""

Body = Callable[[Store], Awaitable[None]]


def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True, exist_ok=True)
    (folder / "versions" / "0001.py").write_text(MIGRATION)
    return folder


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with temporary_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Body], None]:
    folder, given = migrations(tmp_path), ""
    if request.param == "postgresql":
        given = request.getfixturevalue("postgresql")

    async def opened(body: Body) -> None:
        own = f"sqlite+aiosqlite:///{tmp_path}/plain.db"
        store = await Store.open(own if request.param == "sqlite" else given, migrations=folder)
        try:
            await store.write_plain(lambda connection: connection.execute(text("DELETE FROM note")))
            await body(store)
        finally:
            await store.close()

    return lambda body: asyncio.run(opened(body))


def note(name: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(text("INSERT INTO note (name) VALUES (:name)"), {"name": name})
        return name

    return work


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT name FROM note ORDER BY name")))


def test_a_plain_work_is_done_whole_or_not_at_all(run: Callable[[Body], None]) -> None:
    async def body(store: Store) -> None:
        assert await store.write_plain(note("a")) == "a"

        def fails(connection: Connection) -> None:
            note("b")(connection)
            raise RuntimeError("after the row")

        with pytest.raises(RuntimeError, match="after the row"):
            await store.write_plain(fails)
        assert await store.read_plain(names) == ["a"]
        assert await store.write_plain(note("b")) == "b"
        async with store.read() as session:
            assert list(await session.scalars(text("SELECT name FROM note ORDER BY name"))) == ["a", "b"]

    run(body)


def test_what_a_plain_read_changes_is_undone(run: Callable[[Body], None]) -> None:
    async def body(store: Store) -> None:
        assert await store.read_plain(note("a")) == "a"
        assert await store.read_plain(names) == []

    run(body)


def test_works_of_both_kinds_take_turns(run: Callable[[Body], None]) -> None:
    """Each sees what the ones before it wrote, and one that fails undoes nothing but its own."""

    async def body(store: Store) -> None:
        async def ordinary(session: AsyncSession) -> int:
            await session.execute(text("INSERT INTO note (name) VALUES (:name)"), {"name": f"o{next(numbers)}"})
            return len(list(await session.scalars(text("SELECT name FROM note"))))

        def plain(connection: Connection) -> int:
            note(f"p{next(numbers)}")(connection)
            return len(names(connection))

        def fails(connection: Connection) -> int:
            plain(connection)
            raise RuntimeError("one of them")

        numbers = iter(range(100))
        works: list[Any] = []
        for _ in range(4):
            works += [store.write(ordinary), store.write(ordinary), store.write_plain(plain), store.write_plain(fails)]
        results = await asyncio.gather(*works, return_exceptions=True)
        counts = [result for result in results if isinstance(result, int)]
        assert sum(isinstance(result, RuntimeError) for result in results) == 4
        assert len(await store.read_plain(names)) == len(counts) == 12

    run(body)


def test_plain_writes_are_serialised_by_name(run: Callable[[Body], None]) -> None:
    async def body(store: Store) -> None:
        at_once, most = 0, 0

        def work(connection: Connection) -> None:
            nonlocal at_once, most
            serialise_plain(connection, "numbers")
            at_once += 1
            most = max(most, at_once)
            names(connection)
            at_once -= 1

        await asyncio.gather(*(store.write_plain(work) for _ in range(8)))
        assert most == 1

    run(body)


def test_a_closed_store_takes_no_plain_work(run: Callable[[Body], None]) -> None:
    async def body(store: Store) -> None:
        await store.write_plain(note("a"))
        await store.close()
        with pytest.raises(StoreClosed) as refused:
            await store.write_plain(note("b"))
        assert refused.value.code == "store-closed"

    run(body)


def sqlite(tmp_path: Path, body: Body) -> None:
    folder = migrations(tmp_path)

    async def opened() -> None:
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/plain.db", migrations=folder)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(opened())


def test_plain_works_that_wait_are_bounded_and_done_before_the_store_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 2)
    begun, released = threading.Event(), threading.Event()

    def holds(_connection: Connection) -> None:
        begun.set()
        assert released.wait(10)

    async def body(store: Store) -> None:
        holding = asyncio.create_task(store.write_plain(holds))
        await asyncio.to_thread(begun.wait, 10)
        waiting = [asyncio.create_task(store.write_plain(note(name))) for name in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(UmecError) as refused:
            await store.write_plain(note("c"))
        assert refused.value.code == "store-busy"
        waiting[1].cancel()  # who has left while waiting is not served any more
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        released.set()
        await closing
        assert (await holding, await waiting[0]) == (None, "a")

    sqlite(tmp_path, body)

    async def later(store: Store) -> None:
        assert await store.read_plain(names) == ["a"]

    sqlite(tmp_path, later)


def test_writes_are_bounded_on_both_databases(run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 1)
    monkeypatch.setattr(store_module, "MAX_WAITING", 1)

    async def body(store: Store) -> None:
        released = asyncio.Event()

        async def holds(_session: AsyncSession) -> None:
            await released.wait()

        held = []
        for _ in range(3):
            held.append(asyncio.create_task(store.write(holds)))
            await asyncio.sleep(0.01)
        (refused,) = [task.exception() for task in held if task.done()][-1:]
        assert isinstance(refused, StoreBusy)
        assert (refused.code, refused.retry_after) == ("store-busy", 2)
        with pytest.raises(StoreBusy):
            await store.write_plain(note("a"))
        released.set()
        await asyncio.gather(*held, return_exceptions=True)
        assert await store.write_plain(note("b")) == "b"
        assert await store.read_plain(names) == ["b"]

    run(body)


def test_a_database_that_another_process_does_not_let_go_of_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_MS", 50)

    async def body(store: Store) -> None:
        other = sqlite3.connect(tmp_path / "plain.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy):
                await store.write_plain(note("a"))
            assert await store.read_plain(names) == []
            other.execute("ROLLBACK")
        finally:
            other.close()
        assert await store.write_plain(note("a")) == "a"

    sqlite(tmp_path, body)


NOTE = table("note", column("name", String))
NOTES = select(NOTE.c.name, type_coerce(literal_column("1767312000000000"), Timestamp())).where(
    NOTE.c.name.in_(bindparam("keys", expanding=True))
)


def test_rows_are_found_by_their_keys_with_the_values_of_their_types(run: Callable[[Body], None]) -> None:
    async def body(store: Store) -> None:
        for name in "abc":
            await store.write_plain(note(name))
        found = sorted(tuple(row) for row in await store.rows(NOTES, {"a", "c", "x"}))
        assert found == [(name, datetime(2026, 1, 2, tzinfo=UTC)) for name in "ac"]
        assert await store.rows(NOTES, ["x"]) == []
        await store.write_plain(note("x"))
        assert len(await store.rows(NOTES, ["x"])) == 1

    run(body)


def test_rows_are_read_while_another_process_writes(tmp_path: Path) -> None:
    async def body() -> None:
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/held.db", migrations=migrations(tmp_path))
        await store.close()
        holder = sqlite3.connect(tmp_path / "held.db", isolation_level=None)
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/held.db", migrations=migrations(tmp_path))
        assert await store.rows(NOTES, ["a"]) == []
        await store.write_plain(note("a"))
        holder.execute("BEGIN IMMEDIATE")  # who only writes keeps nobody from reading
        assert len(await store.rows(NOTES, ["a"])) == 1
        holder.execute("ROLLBACK")
        holder.close()
        await store.close()

    asyncio.run(body())


def test_rows_of_a_file_that_another_process_holds_whole_are_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "held.db"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("PRAGMA journal_mode = WAL")
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("CREATE TABLE note (name TEXT PRIMARY KEY)")
    local = store_module._Local(make_url(f"sqlite+aiosqlite:///{file}"))
    with pytest.raises(StoreBusy) as refused:
        local.rows(NOTES, ["a"])
    assert refused.value.code == "store-busy"
    holder.close()
    assert local.rows(NOTES, ["a"]) == []
    local.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY, StoreBusy),
        (sqlite3.SQLITE_BUSY_RECOVERY, StoreBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy),
        (sqlite3.SQLITE_LOCKED, OperationalError),
        (sqlite3.SQLITE_ERROR, OperationalError),
    ],
)
def test_every_way_of_being_busy_is_busy(tmp_path: Path, code: int, expected: type[Exception]) -> None:
    class Refusing:
        """A connection to a database that refuses every statement."""

        def execute(self, *_words: object) -> None:
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = code
            raise error

    local = store_module._Local(make_url(f"sqlite:///{tmp_path / 'here.db'}"))
    here = local._here
    local._here = Refusing()  # type: ignore[assignment]
    try:
        with pytest.raises(expected):
            local.rows(NOTES, ["a"])
    finally:
        local._here = here
        local.close()
