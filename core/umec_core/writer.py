"""The one writer of a SQLite database: many works, one COMMIT.

Each work runs in its own savepoint, so an exception undoes only that work; the works of a batch become durable
together, and only then does any of them get its result. Works that wait while a batch commits form the next batch, so
the cost of one fsync is shared by as many as are waiting and nobody waits for company.

A plain work is a transaction of its own, and runs in a thread from its BEGIN to its COMMIT: for who does much by few
statements, each of which would be several trips to a thread otherwise.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from umec_core.errors import Unavailable

__all__ = ["StoreBusy", "StoreClosed", "Writer"]

T = TypeVar("T")
Work = Callable[[AsyncSession], Awaitable[T]]
PlainWork = Callable[[Connection], T]

MAX_BATCH: Final = 256
"""Works in one transaction: bounds what one failing COMMIT (a full disk) can undo."""

MAX_WAITING: Final = 4096
"""Works that wait: some seconds' worth. Beyond it, an answer that comes too late is worth less than a refusal now."""


class StoreClosed(Unavailable):
    """The store is closed, or closes before the work began."""

    code = "store-closed"


class StoreBusy(Unavailable):
    """Too many works wait for the store, or another process does not let go of it."""

    code = "store-busy"
    retry_after = 2


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work[Any]
    result: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _PlainJob:
    work: PlainWork[Any]
    result: asyncio.Future[Any]


class Writer:
    """Runs works one after the other and commits them in batches; `plain` is the same database for plain works."""

    def __init__(self, engine: AsyncEngine, plain: Engine) -> None:
        self._engine = engine
        self._plain = plain
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._jobs: asyncio.Queue[_Job | _PlainJob | None] = asyncio.Queue()
        self._held: _PlainJob | None = None
        self._closed = False
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def write(self, work: Work[T]) -> T:
        """Run a work and return its result after the COMMIT; raises what the work raised.

        Raises `StoreClosed` or `StoreBusy` where it was not even begun.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._hand_in(_Job(work, result))
        return await result

    async def write_plain(self, work: PlainWork[T]) -> T:
        """Do the same with a plain work, in a transaction of its own."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._hand_in(_PlainJob(work, result))
        return await result

    def _hand_in(self, job: _Job | _PlainJob) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")
        if self._jobs.qsize() >= MAX_WAITING:
            raise StoreBusy(f"{MAX_WAITING} works wait for the store", advice="try again in a few seconds")
        self._jobs.put_nowait(job)

    async def close(self) -> None:
        """Finish what was handed in, then stop."""
        if not self._closed:
            self._closed = True
            self._jobs.put_nowait(None)
        await asyncio.wait([self._task])  # it may have been cancelled: that is then not the closer's business
        self._thread.shutdown()
        self._plain.dispose()

    async def _run(self) -> None:
        try:
            job = await self._jobs.get()
            while job is not None:
                await (self._batch(job) if isinstance(job, _Job) else self._alone(job))
                held, self._held = self._held, None
                job = await self._jobs.get() if held is None else held
        finally:  # also when a work was cancelled from within: nobody may wait for a writer that is gone
            self._closed = True
            if self._held is not None:
                self._jobs.put_nowait(self._held)
            while not self._jobs.empty():
                if (left := self._jobs.get_nowait()) is not None:
                    _fail(left, StoreClosed("the store closed before this work began"))

    async def _alone(self, job: _PlainJob) -> None:
        """Run a plain work in a transaction of its own."""
        if job.result.cancelled():
            return
        try:
            value = await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, job.work)
        except Exception as error:  # noqa: BLE001 - the caller is told
            _fail(job, error)
        except asyncio.CancelledError:
            _fail(job, StoreClosed("the store closed before it was known whether this work was done"))
            raise
        else:
            if not job.result.done():
                job.result.set_result(value)

    def _transact(self, work: PlainWork[T]) -> T:
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(self._plain.begin())
            except OperationalError as error:  # BEGIN IMMEDIATE, until the patience of `umec_core.store` was over
                raise StoreBusy("another process holds the database", advice="try again in a few seconds") from error
            return work(connection)

    async def _batch(self, first: _Job) -> None:
        """Run and commit a batch, up to the next plain work."""
        done: list[tuple[_Job, Any]] = []
        job: _Job | None = first
        try:
            async with self._engine.connect() as connection, connection.begin():
                while job is not None:
                    await self._one(connection, job, done)
                    job = self._next_waiting(len(done))
        except BaseException as error:  # the transaction is gone, and each waiting caller is told why
            told = error if isinstance(error, Exception) else StoreClosed("the store closed before this work was done")
            for finished, _ in done:
                _fail(finished, told)
            if job is not None:
                _fail(job, told)
            if told is not error:
                raise
        else:
            for finished, value in done:
                if not finished.result.done():
                    finished.result.set_result(value)

    def _next_waiting(self, finished: int) -> _Job | None:
        """Return the next job if one waits already. The main loop goes on with the closing mark and plain works."""
        if finished >= MAX_BATCH or self._jobs.empty():
            return None
        job = self._jobs.get_nowait()
        if isinstance(job, _Job):
            return job
        if job is None:
            self._jobs.put_nowait(None)
        else:
            self._held = job
        return None

    @staticmethod
    async def _one(connection: AsyncConnection, job: _Job, done: list[tuple[_Job, Any]]) -> None:
        """Run one job in its savepoint: what a work raises goes to its caller, what the savepoint raises to all."""
        if job.result.cancelled():
            return
        async with AsyncSession(
            bind=connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            try:
                value = await job.work(session)
                await session.commit()
            except BaseException as error:
                if not _is_of_work(error):
                    raise
                await session.rollback()
                _fail(job, error)
            else:
                done.append((job, value))


def _is_of_work(error: BaseException) -> bool:
    """Whether a work itself raised it: also where it was cancelled from within, and not the writer around it."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


def _fail(job: _Job | _PlainJob, error: BaseException) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        if isinstance(error, asyncio.CancelledError):
            job.result.cancel()
        else:
            job.result.set_exception(error)
