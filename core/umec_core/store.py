"""Rows: one database for each service, SQLite by default and PostgreSQL by URL, the same models and migrations.

    Store.open(url, migrations=folder)    brings the schema to the newest revision (Alembic, folder/versions/*.py)
    async with store.read() as session    a consistent snapshot
    await store.write(work)               runs `work(session)` in a transaction and returns its result after COMMIT
    await store.read_plain(work)          runs `work(connection)` on a consistent snapshot
    await store.write_plain(work)         runs `work(connection)` in a transaction

The last two are for paths that are asked hundreds of times a second: `work` is a plain function over a connection of
SQLAlchemy Core. On SQLite all of it happens in another thread, at the price of one trip there. What is asked for each
request, some rows by their key, is not worth even that:

    await store.rows(query, keys)         the rows of a query with one parameter, `KEY IN :keys`, for these keys

On SQLite all writes go through one group-commit writer (`umec_core.writer`). On PostgreSQL each is a transaction of its
own; what has to be numbered without gaps in the order of commits takes `serialise` first.
"""

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BigInteger,
    Connection,
    Dialect,
    Engine,
    Integer,
    Select,
    TypeDecorator,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from umec_core.errors import UmecError
from umec_core.writer import MAX_WAITING, StoreBusy, StoreClosed, Writer

__all__ = ["RowId", "Store", "StoreClosed", "StoreUrlInvalid", "Timestamp", "serialise", "serialise_plain"]

T = TypeVar("T")

SQLITE: Final = "sqlite+aiosqlite"
POSTGRESQL: Final = "postgresql+asyncpg"

BUSY_MS: Final = 10_000
"""How long a statement waits for another process that holds the lock (a backup, a second service by mistake)."""

BUSY_HERE: Final = 0.02
"""Seconds that a read waits for it for which all else in the process waits; writers do not make it wait (WAL)."""

READERS: Final = 8
"""Connections that read at the same time: each is a thread on SQLite."""

WRITERS: Final = 8
"""Transactions that write at the same time on PostgreSQL: readers find a connection, too."""

RowId: Final = BigInteger().with_variant(Integer(), "sqlite")
"""The type of a numbered primary key: SQLite numbers rows by itself only when the type is spelled INTEGER."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class StoreUrlInvalid(UmecError):
    """The URL of a database is none that this store can open."""

    code = "store-url-invalid"


class Timestamp(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970 in UTC: exact, comparable and the same on both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Return what the database keeps; a naive datetime raises TypeError."""
        return None if value is None else (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the aware datetime in UTC."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


class _Writes(Protocol):
    async def write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T: ...
    async def write_plain(self, work: Callable[[Connection], T]) -> T: ...
    async def close(self) -> None: ...


class Store:
    """One open database."""

    def __init__(
        self, reader: AsyncEngine, writer: AsyncEngine, writes: _Writes, *, local: "_Local | None" = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._writes = writes
        self._local = local
        self._sessions = async_sessionmaker(reader, expire_on_commit=False)

    @classmethod
    async def open(cls, url: str, *, migrations: Path) -> "Store":
        """Open a database and bring its schema to the newest revision under `migrations/versions`.

        The URL is `sqlite+aiosqlite:///PATH` (the file is made with mode 0600, in a folder of mode 0700) or
        `postgresql+asyncpg://…`. Raises `StoreUrlInvalid`.
        """
        parsed = _parse_url(url)
        if parsed.drivername == SQLITE:
            _make_file(Path(str(parsed.database)))
            writer = _sqlite_engine(parsed, begin="BEGIN IMMEDIATE", size=1)
            reader = _sqlite_engine(parsed, begin="BEGIN", size=READERS)
        else:
            writer = reader = create_async_engine(parsed, pool_size=READERS, pool_pre_ping=True)
        try:
            await _migrate(writer, migrations)
        except BaseException:
            await writer.dispose()
            await reader.dispose()
            raise
        if parsed.drivername == SQLITE:
            writes = Writer(writer, _plain_engine(parsed, begin="BEGIN IMMEDIATE"))
            return cls(reader, writer, writes, local=_Local(parsed))
        return cls(reader, writer, _Transactions(writer))

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a session to read with; whatever it changes is undone."""
        async with self._sessions() as session:
            yield session

    async def write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run `work(session)` in a transaction; return its result after COMMIT, or raise what it raised, undone.

        A work touches rows and nothing else: on SQLite all others wait for it.
        """
        return await self._writes.write(work)

    async def read_plain(self, work: Callable[[Connection], T]) -> T:
        """Run a plain work on a consistent snapshot; whatever it changes is undone."""
        if self._local is not None:
            return await self._local.read(work)
        async with self._reader.connect() as connection:
            return await connection.run_sync(work)

    async def rows(self, query: Select[Any], keys: Collection[str]) -> list[Sequence[Any]]:
        """Return the rows of a query whose one parameter is `keys`, an expanding one for `IN`.

        The rows of one key are of one moment; their order is any. A query is kept: it has to be one of few. On SQLite
        it is done at once, in the thread that asks, and raises `StoreBusy` where another process holds the whole file.
        """
        if self._local is not None:
            return self._local.rows(query, keys)
        async with self._reader.connect() as connection:
            return list(await connection.execute(query, {"keys": sorted(keys)}))

    async def write_plain(self, work: Callable[[Connection], T]) -> T:
        """Run a plain work in a transaction of its own; return its result after COMMIT, or raise what it raised."""
        return await self._writes.write_plain(work)

    def version(self) -> int | None:
        """Return a number that is another one after every COMMIT, by whatever process; None if there is no such number.

        Who reads it before reading rows may keep what it made of them for as long as the number stays the same. It
        costs some microseconds on SQLite (`PRAGMA data_version`, of which no thread is needed); PostgreSQL has none.
        """
        return None if self._local is None else self._local.version()

    async def close(self) -> None:
        """Finish the writes that were handed in and close every connection."""
        await self._writes.close()
        if self._local is not None:
            self._local.close()
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


async def serialise(session: AsyncSession, name: str) -> None:
    """Let only one transaction at a time go on from here, until its end.

    Numbers that are given out after this call become visible in their order, without gaps. SQLite has one writer and
    needs nothing; on PostgreSQL it is an advisory lock of the transaction.
    """
    await (await session.connection()).run_sync(serialise_plain, name)


def serialise_plain(connection: Connection, name: str) -> None:
    """Do what `serialise` does, on a plain connection."""
    if connection.dialect.name == "postgresql":
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


class _Local:
    """What is to be had of a file: reads in a thread, rows at once, and the number of what was written."""

    def __init__(self, url: URL) -> None:
        self._engine = _plain_engine(url, begin="BEGIN")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._here = sqlite3.connect(str(url.database), isolation_level=None, timeout=BUSY_HERE)
        self._prepared: dict[Select[Any], _Prepared] = {}

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return work(connection)

    def rows(self, query: Select[Any], keys: Iterable[str]) -> list[Sequence[Any]]:
        prepared = self._prepared.get(query)
        if prepared is None:
            prepared = self._prepared[query] = _Prepared.of(query, self._engine.dialect)
        try:
            return [row for key in keys for row in prepared.rows(self._here, key)]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:  # also while another one recovers the log
                raise StoreBusy("another process holds the database", advice="try again in a few seconds") from error
            raise OperationalError(prepared.sql, None, error) from error

    def version(self) -> int:
        (number,) = self._here.execute("PRAGMA data_version").fetchone()
        return int(number)

    def close(self) -> None:
        self._thread.shutdown()
        self._engine.dispose()
        self._here.close()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A query for one key, as text, and what makes values of ours from those of SQLite, by column."""

    sql: str
    processors: tuple[tuple[int, Callable[[Any], Any]], ...]

    @classmethod
    def of(cls, query: Select[Any], dialect: Dialect) -> "_Prepared":
        compiled = query.params(keys=[""]).compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        made = (column.type.dialect_impl(dialect).result_processor(dialect, None) for column in query.selected_columns)
        return cls(str(compiled), tuple((place, found) for place, found in enumerate(made) if found is not None))

    def rows(self, connection: sqlite3.Connection, key: str) -> Iterator[Sequence[Any]]:
        for row in connection.execute(self.sql, (key,)):
            values = list(row)
            for place, process in self.processors:
                values[place] = process(values[place])
            yield values


class _Transactions:
    """Writes of a database with many writers: each work is a transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turns = asyncio.Semaphore(WRITERS)
        self._under_way = 0
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._closed = False

    async def write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        async with self._turn(), self._sessions.begin() as session:
            return await work(session)

    async def write_plain(self, work: Callable[[Connection], T]) -> T:
        async with self._turn(), self._engine.begin() as connection:
            return await connection.run_sync(work)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._closed:
            raise StoreClosed("the store is closed")
        if self._under_way >= MAX_WAITING:
            raise StoreBusy(f"{MAX_WAITING} works wait for the store", advice="try again in a few seconds")
        self._under_way += 1
        try:
            async with self._turns:
                yield
        finally:
            self._under_way -= 1

    async def close(self) -> None:
        self._closed = True


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreUrlInvalid("the URL of the database is malformed") from error
    if parsed.drivername not in {SQLITE, POSTGRESQL}:
        raise StoreUrlInvalid(f"the URL names {parsed.drivername!r}, expected {SQLITE} or {POSTGRESQL}")
    if parsed.drivername == SQLITE and parsed.database in {None, "", ":memory:"}:
        raise StoreUrlInvalid("a SQLite database is a file here: readers and the writer have connections of their own")
    return parsed


def _make_file(path: Path) -> None:
    """Make the database file before SQLite does; its journal files take over the mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _sqlite_engine(url: URL, *, begin: str, size: int) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=size, max_overflow=0)
    _prepare(engine.sync_engine, begin)
    return engine


def _plain_engine(url: URL, *, begin: str) -> Engine:
    """Return an engine for one thread."""
    engine = create_engine(url.set(drivername="sqlite+pysqlite"), pool_size=1, max_overflow=0)
    _prepare(engine, begin)
    return engine


def _prepare(engine: Engine, begin: str) -> None:
    def connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection has no type
        connection.isolation_level = None  # transactions begin and end where SQLAlchemy says, not where sqlite3 guesses
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # a verdict that was answered survives a power cut
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", start)


_migrating: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]" = weakref.WeakKeyDictionary()


async def _migrate(engine: AsyncEngine, folder: Path) -> None:
    """Bring a database to the head revision. Alembic's `op` is one global for the process, hence one at a time."""
    lock = _migrating.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with lock, engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('umec-migrations'))"))
        await connection.run_sync(_upgrade, folder)


def _upgrade(connection: Connection, folder: Path) -> None:
    script = ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])

    def steps(revision: Any, _context: MigrationContext) -> Any:  # noqa: ANN401 - Alembic's own types are private
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - what alembic.command.upgrade calls too

    with _quiet_proxy(MigrationContext.configure(connection, opts={"fn": steps, "script": script})) as context:
        context.run_migrations()


@contextlib.contextmanager
def _quiet_proxy(context: MigrationContext) -> Iterator[MigrationContext]:
    """Point `alembic.op` at this migration, and away from it again even when a step fails."""
    operations = Operations(context)
    operations._install_proxy()  # noqa: SLF001 - Operations.context leaves it after errors
    try:
        yield context
    finally:
        operations._remove_proxy()  # noqa: SLF001
