"""What many wait for at one moment, done once for all of them: one query, one transaction, one trip to a thread.

Whoever comes while a batch is under way is in the next one, so nobody sees what was read before they asked. Who comes
after a pause waits for nobody; where batches follow each other, each begins some time after the one before, so that
more of those who come share it.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Together"]

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Asked, Answer]):
    """Collects what is asked at one moment; one batch is under way at a time, and they begin `apart` seconds apart.

    `work` gets at most `most` of what was asked, in the order in which it came, and returns an answer or an error for
    each; what it raises is raised to all of them.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer | Exception]]],
        *,
        most: int,
        apart: float = 0.0,
    ) -> None:
        self._work = work
        self._most = most
        self._apart = apart
        self._next = 0.0
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def do(self, asked: Asked) -> Answer:
        """Return the answer to `asked`, or raise its error."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._running is None:
            # Begins after all who are about to ask now; its log lines belong to no single request.
            self._running = asyncio.create_task(self._run(), context=contextvars.Context())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                if still := [(asked, future) for asked, future in batch if not future.done()]:
                    await self._one(still)
        finally:
            self._running = None
            left, self._waiting = self._waiting, []
            for _, future in left:  # only where this task was cancelled: the service ends
                future.cancel()

    async def _gather(self) -> None:
        """Let others come, where the last batch began just now and there is room in this one."""
        loop = asyncio.get_running_loop()
        left = self._next - loop.time()
        if left > 0 and len(self._waiting) < self._most:
            await asyncio.sleep(left)
        self._next = loop.time() + self._apart

    async def _one(self, batch: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._work([asked for asked, _ in batch])
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            answers = [error] * len(batch)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), answer in zip(batch, answers, strict=True):
            with contextlib.suppress(asyncio.InvalidStateError):  # who asked has left meanwhile
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
