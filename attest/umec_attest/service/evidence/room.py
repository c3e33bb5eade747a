"""How much may be under way: beyond it, hearing at once when to come back is better than a verdict that is late."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Final

from umec_attest.service.errors import VerifierBusy

__all__ = ["Room"]

LONGEST: Final = 5
"""Seconds after which to come back, at most; each is told another time, so that they do not come back together."""


class Room:
    """Room for so many at once."""

    def __init__(self, most: int) -> None:
        self._left = most

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold room for the block; raises `VerifierBusy` where there is none."""
        if not self._left:
            raise VerifierBusy(
                "the verifier has more to do than it gets done in time", retry_after=1 + secrets.randbelow(LONGEST)
            )
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1
