"""How often somebody may ask: token buckets by address and by client, bounded in number."""

import math
from collections import OrderedDict
from typing import Final

from umec_core.clock import Clock
from umec_identity.errors import TooManyRequests

__all__ = ["Buckets"]

REMEMBERED: Final = 16_384
"""Buckets that are kept; the one that was not asked for longest goes first, and comes back full."""

BURST_SECONDS: Final = 4.0
"""How many seconds' worth of requests may come at once."""


class Buckets:
    """One bucket for each name, refilled at `rate` requests a second."""

    def __init__(self, rate: float, *, what: str, clock: Clock) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._what = what
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """Take one request from a bucket; raises `TooManyRequests` if it is empty."""
        now = self._clock().timestamp()
        level, at = self._levels.pop(name, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - at) * self._rate)
        allowed = level >= 1.0
        self._levels[name] = (level - 1.0 if allowed else level, now)
        if len(self._levels) > REMEMBERED:
            self._levels.popitem(last=False)
        if not allowed:
            wait = math.ceil((1.0 - level) / self._rate)
            raise TooManyRequests(f"this {self._what} asks more than {self._rate:g} times a second", retry_after=wait)
