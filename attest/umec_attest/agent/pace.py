"""When the agent does what: waiting that grows, is never in step with other nodes, and ends when it has to."""

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Pace", "pause", "spread", "unless"]

LONGEST_ASKED: Final = 300.0
"""Seconds; a verifier that is asked by more nodes than it carries may send them away, but not for good."""
DRIFT: Final = 0.1
"""Periods are up to this part shorter, so that nodes that started together drift apart."""

_random: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait after failures in a row, in seconds: doubled each time, then anything from half of it on."""

    first: float = 1.0
    longest: float = 30.0

    def after(self, failures: int, *, asked: float | None = None, most: float | None = None) -> float:
        """Return a waiting time with jitter.

        `most` bounds it; what a server asked for (Retry-After) comes first, and half as long again at most.
        """
        whole = min(self.longest, self.first * 2.0 ** min(failures - 1, 16))
        own = float(_random.uniform(whole / 2, whole))
        own = own if most is None else min(own, most)
        if asked is None:
            return own
        least = min(asked, LONGEST_ASKED)
        return max(own, float(_random.uniform(least, 1.5 * least)))


def spread(period: float) -> float:
    """Return a period that is a little shorter than the given one."""
    return period * float(_random.uniform(1 - DRIFT, 1.0))


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Do the work unless `stop` comes first; tell whether it was done."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            await asyncio.wait({doing})
            return False
        doing.result()
        return True
    finally:
        stopping.cancel()
