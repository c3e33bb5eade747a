"""The one writer of a SQLite database: many works, one COMMIT.

Each work runs in its own savepoint, so an exception undoes only that work; the works of a batch become durable
together, and only then does any of them get its result. Works that wait while a batch commits form the next batch, so
the cost of one fsync is shared by as many as are waiting and nobody waits for company.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from umec_core.errors import Unavailable

__all__ = ["StoreBusy", "StoreClosed", "Writer"]

T = TypeVar("T")
Work = Callable[[AsyncSession], Awaitable[T]]

MAX_BATCH: Final = 256
"""Works in one transaction: bounds what one failing COMMIT (a full disk) can undo."""

MAX_WAITING: Final = 4096
"""Works that wait: some seconds' worth. Beyond it, an answer that comes too late is worth less than a refusal now."""


class StoreClosed(Unavailable):
    """The store is closed, or closes before the work began."""

    code = "store-closed"


class StoreBusy(Unavailable):
    """Too many works wait for the store."""

    code = "store-busy"


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work[Any]
    result: asyncio.Future[Any]


class Writer:
    """Runs works one after the other on one connection and commits them in batches."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._jobs: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._closed = False
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def write(self, work: Work[T]) -> T:
        """Run a work and return its result after the COMMIT; raises what the work raised.

        Raises `StoreClosed` or `StoreBusy` where it was not even begun.
        """
        if self._closed:
            raise StoreClosed("the store is closed")
        if self._jobs.qsize() >= MAX_WAITING:
            raise StoreBusy(f"{MAX_WAITING} works wait for the store", advice="try again in a few seconds")
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(_Job(work, result))
        return await result

    async def close(self) -> None:
        """Finish what was handed in, then stop."""
        if not self._closed:
            self._closed = True
            self._jobs.put_nowait(None)
        await asyncio.wait([self._task])  # it may have been cancelled: that is then not the closer's business

    async def _run(self) -> None:
        try:
            job = await self._jobs.get()
            while job is not None:
                job = await self._batch(job)
        finally:  # also when a work was cancelled from within: nobody may wait for a writer that is gone
            self._closed = True
            while not self._jobs.empty():
                if (left := self._jobs.get_nowait()) is not None:
                    _fail([left], StoreClosed("the store closed before this work began"))

    async def _batch(self, first: _Job) -> _Job | None:
        """Run and commit a batch; returns the job that opens the next one, or None when the writer closes."""
        done: list[tuple[_Job, Any]] = []
        job: _Job | None = first
        try:
            async with self._engine.connect() as connection, connection.begin():
                while job is not None:
                    await self._one(connection, job, done)
                    job = self._next_waiting(len(done))
        except BaseException as error:  # the transaction is gone, and each waiting caller is told why
            told = error if isinstance(error, Exception) else StoreClosed("the store closed before this work was done")
            _fail([*(finished for finished, _ in done), *([job] if job is not None else [])], told)
            if told is not error:
                raise
        else:
            for finished, value in done:
                if not finished.result.done():
                    finished.result.set_result(value)
        return await self._jobs.get()

    def _next_waiting(self, finished: int) -> _Job | None:
        """Return the next job if one waits already. The closing mark stays in the queue for the main loop."""
        if finished >= MAX_BATCH or self._jobs.empty():
            return None
        job = self._jobs.get_nowait()
        if job is None:
            self._jobs.put_nowait(None)
        return job

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
                _fail([job], error)
            else:
                done.append((job, value))


def _is_of_work(error: BaseException) -> bool:
    """Whether a work itself raised it: also where it was cancelled from within, and not the writer around it."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


def _fail(jobs: list[_Job], error: BaseException) -> None:
    for job in jobs:
        with contextlib.suppress(asyncio.InvalidStateError):
            if isinstance(error, asyncio.CancelledError):
                job.result.cancel()
            else:
                job.result.set_exception(error)
