"""How much may be under way: beyond it, hearing at once when to come back is better than a verdict that is late.

Who finds no room is given a turn: as many seconds from now as those take who were told so before, at the pace at which
room has become free. All of them coming back at once would keep the verifier busy with sending them away.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from umec_attest.service.errors import VerifierBusy

__all__ = ["Room"]

SOONEST: Final = 1.0
LONGEST: Final = 30.0
"""Seconds after which to come back; who is silent for some rounds lapses, so that no turn is later than this."""
SHARE: Final = 0.5
"""The part of the pace that turns take; the other is for those who come for the first time."""
MEMORY: Final = 0.02
"""How much one that is done changes the pace: it is that of the last fifty or so."""
SLOWEST: Final = 0.1
"""Seconds between two that are done, at most: a pause of a node is no measure of what the verifier gets done."""


class Room:
    """Room for so many at once."""

    def __init__(self, most: int, *, now: Callable[[], float] = time.monotonic) -> None:
        """`now` gives seconds."""
        self._left = most
        self._now = now
        self._done = now()
        self._between = SLOWEST
        self._turn = self._done

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold room for the block; raises `VerifierBusy` where there is none."""
        if not self._left:
            raise VerifierBusy(
                "the verifier has more to do than it gets done in time", retry_after=round(self._next_turn())
            )
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1
            self._keep_pace()

    def _keep_pace(self) -> None:
        now = self._now()
        self._between += MEMORY * (min(now - self._done, SLOWEST) - self._between)
        self._done = now

    def _next_turn(self) -> float:
        """Return how many seconds from now nobody was told to come back."""
        now = self._now()
        self._turn = min(max(self._turn + self._between / SHARE, now + SOONEST), now + LONGEST)
        return self._turn - now
