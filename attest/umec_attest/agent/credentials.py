"""What a node holds by its last good verdict: the result itself, its certificate with connection and tokens, and doors.

All of it goes when the verdict does, or the keys that it is bound to. What is opened while that happens goes, too.
"""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from umec_attest.agent.doors import Door, Doors
from umec_attest.agent.errors import NotAttested
from umec_attest.agent.session import AttestationResult, Session
from umec_attest.agent.wire import Result
from umec_core.clock import Clock

__all__ = ["Credentials"]

SAME_INSTANT: Final = timedelta(seconds=1)
"""Ends of life that differ by less are the same: one of them was rounded."""


class Credentials:
    """The credentials of one agent; `result` is the verifier's newest word, while that stands."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._session: Session | None = None
        self._doors = Doors()
        self.result: AttestationResult | None = None

    async def take(self, result: Result) -> None:
        """Go on from what a round gave: without a result for the node's generation it has nothing."""
        if result.ear is not None:
            self.result = AttestationResult.of(result.ear, generation=result.generation, clock=self._clock)
        elif self.result is not None and self.result.generation != result.generation:
            self.result = None
        if self.result is None:
            await self._replace(None)

    async def let_go(self) -> None:
        """Forget them; doors stay for the news of it."""
        self.result = None
        await self._replace(None)

    async def close(self) -> None:
        """Forget them, and close the doors at once."""
        self._doors.close()
        await self.let_go()

    def current(self) -> AttestationResult:
        """Return the result. Raises NotAttested where there is none that lives."""
        result = self.result
        if result is None or result.expires <= self._clock():
            raise NotAttested("the last round gave no attestation result", advice="umec node show tells why")
        return result

    def due(self, result: AttestationResult) -> bool:
        """Tell whether a new certificate is wanted. One result serves several rounds, and no certificate outlives it.

        So half of a life is a reason only where the result would give a longer one.
        """
        if self._session is None:
            return True
        credential = self._session.credential
        if credential.generation != result.generation:
            return True
        return credential.due(self._clock()) and result.expires - credential.expires > SAME_INSTANT

    def certified(self, generation: int) -> bool:
        """Tell whether there is a certificate for this generation of the node, and it can be used."""
        if self._session is None:
            return False
        credential = self._session.credential
        return credential.generation == generation and credential.usable(self._clock())

    async def put(self, opened: Session) -> None:
        """Put a new session in the place of the present one. Raises NotAttested."""
        if self.result is None:  # a verdict came in between
            await opened.close()
            raise NotAttested("the attestation result fell meanwhile", advice="umec node show tells why")
        await self._replace(opened)

    @contextlib.contextmanager
    def lent(self) -> Iterator[Session]:
        """Lend the present session for one call. Calls do not wait for each other, nor for a renewal.

        Raises NotAttested.
        """
        if self._session is None or not self._session.credential.usable(self._clock()):
            raise NotAttested("the node has no certificate now", advice="umec node show tells what the verifier found")
        with self._session.lent() as session:
            yield session

    async def door(self, host: str, port: int) -> Door:
        """Open a connection that shows the node's certificate. Raises NotAttested, DoorsBusy, RemoteUnavailable."""
        self._doors.check()
        with self.lent() as session:
            far = await session.platform.connect(host, port)
            left = session.credential.expires - self._clock()
        door = self._doors.open(far, left.total_seconds())
        if self._session is None:  # a verdict came in between
            door.close()
            raise NotAttested("the node's credentials went meanwhile", advice="umec node show tells why")
        return door

    async def _replace(self, session: Session | None) -> None:
        """Put another session in the place of the present one, which ends with the last call that is under way."""
        former, self._session = self._session, session
        if session is None:
            self._doors.close_soon()
        if former is not None:
            await former.retire()
