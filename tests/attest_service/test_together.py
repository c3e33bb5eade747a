"""What many wait for is done once for all of them, and nobody gets the answer, the error or the log line of another."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar

import pytest

from umec_attest.service.evidence import together as module
from umec_attest.service.evidence.together import Together

Batches = list[list[int]]
Work = Callable[[Sequence[int]], Awaitable[Sequence[str | Exception]]]


def doubling(batches: Batches, *, gate: asyncio.Event | None = None) -> Work:
    async def work(asked: Sequence[int]) -> Sequence[str | Exception]:
        batches.append(list(asked))
        if gate is not None:
            await gate.wait()
        return [ValueError(f"{one} is odd") if one % 2 else f"{one}" for one in asked]

    return work


def test_who_asks_at_one_moment_is_answered_by_one_batch() -> None:
    async def body() -> None:
        batches: Batches = []
        together = Together(doubling(batches), most=3)
        assert await asyncio.gather(*(together.do(number) for number in (0, 2, 4, 6))) == ["0", "2", "4", "6"]
        assert batches == [[0, 2, 4], [6]]
        assert await together.do(8) == "8"
        assert batches[2:] == [[8]]

    asyncio.run(body())


def test_who_asks_while_a_batch_is_under_way_is_in_the_next_one() -> None:
    async def body() -> None:
        batches: Batches = []
        gate = asyncio.Event()
        together = Together(doubling(batches, gate=gate), most=8)
        first = asyncio.create_task(together.do(0))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(together.do(number)) for number in (2, 4)]
        await asyncio.sleep(0.01)
        assert batches == [[0]]
        gate.set()
        assert (await first, *await asyncio.gather(*others)) == ("0", "2", "4")
        assert batches == [[0], [2, 4]]

    asyncio.run(body())


def test_each_gets_its_own_error() -> None:
    async def body() -> None:
        together = Together(doubling([]), most=8)
        answers = await asyncio.gather(*(together.do(number) for number in (0, 1, 2)), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["0", "1 is odd", "2"]

        async def fails(_asked: Sequence[int]) -> Sequence[str]:
            raise RuntimeError("for all")

        failing = Together(fails, most=8)
        answers = await asyncio.gather(*(failing.do(number) for number in (0, 1)), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["for all", "for all"]
        assert await together.do(4) == "4"

    asyncio.run(body())


def test_who_has_left_is_not_worked_for_and_disturbs_nobody() -> None:
    async def body() -> None:
        batches: Batches = []
        gate = asyncio.Event()
        together = Together(doubling(batches, gate=gate), most=8)
        first, leaves = (asyncio.create_task(together.do(number)) for number in (0, 2))
        await asyncio.sleep(0.01)
        late = asyncio.create_task(together.do(4))
        await asyncio.sleep(0.01)
        leaves.cancel()
        late.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        assert await first == "0"
        await asyncio.sleep(0.01)
        assert batches == [[0, 2]]
        assert await together.do(6) == "6"

    asyncio.run(body())


def test_who_waits_when_the_service_ends_waits_no_longer() -> None:
    async def body() -> None:
        together = Together(doubling([], gate=asyncio.Event()), most=1)
        waiting = [asyncio.create_task(together.do(number)) for number in (0, 2)]
        await asyncio.sleep(0.01)
        running = together._running
        assert running is not None
        running.cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2

    asyncio.run(body())


def test_a_batch_is_logged_under_nobody_s_request() -> None:
    request: ContextVar[str] = ContextVar("request", default="nobody's")

    async def body() -> None:
        async def work(asked: Sequence[int]) -> Sequence[str]:
            return [request.get()] * len(asked)

        request.set("the first one's")
        assert await Together(work, most=8).do(0) == "nobody's"

    asyncio.run(body())


def test_batches_that_follow_each_other_begin_some_time_apart_and_who_comes_meanwhile_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        waits: list[float] = []
        gate, waiting = asyncio.Event(), asyncio.Event()

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            waiting.set()
            await gate.wait()

        monkeypatch.setattr(module.asyncio, "sleep", sleep)
        batches: Batches = []
        together = Together(doubling(batches), most=2, apart=3600.0)
        assert await together.do(0) == "0"
        assert not waits  # who comes after a pause waits for nobody
        others = [asyncio.create_task(together.do(2))]
        await waiting.wait()
        assert batches == [[0]]
        others.append(asyncio.create_task(together.do(4)))
        gate.set()
        assert await asyncio.gather(*others) == ["2", "4"]
        assert batches == [[0], [2, 4]]
        assert 0 < waits[0] <= 3600
        assert len(waits) == 1
        assert await asyncio.gather(together.do(6), together.do(8)) == ["6", "8"]  # nor does a batch that is full
        assert len(waits) == 1

    asyncio.run(body())
