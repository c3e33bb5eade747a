"""Refusals in the audit log: every one to a client that proved itself, and a bounded number to anybody."""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.store import Store
from umec_identity.authentication.service import Authenticated
from umec_identity.errors import TooManyRequests
from umec_identity.limits import Buckets
from umec_identity.rows import consume

__all__ = ["Refusals"]

LOGGED_PER_SECOND: Final = 1.0
"""Refusals of one address that are logged before it has proved anything; more are counted only, or anybody could fill
the log."""


class Refusals:
    """Writes refusals to the audit log."""

    def __init__(self, store: Store, *, audit: AuditLog, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._noise = Buckets(LOGGED_PER_SECOND, what="address", clock=clock)

    async def authenticated(self, action: str, who: Authenticated, subject: str, refusal: UmecError) -> None:
        """Log a refusal to a client that proved itself, and use up what it used: a refused request is not repeated."""

        async def work(session: AsyncSession) -> None:
            for one in who.used:
                await consume(session, one)
            await self._append(session, who.client_id, action, subject, refusal)

        await self._store.write(work)

    async def unauthenticated(self, action: str, address: str, refusal: UmecError) -> None:
        """Log a refusal to somebody who proved nothing, unless that address has had many."""
        try:
            self._noise.take(address)
        except TooManyRequests:
            return
        await self._store.write(lambda session: self._append(session, "unauthenticated", action, address, refusal))

    async def _append(self, session: AsyncSession, actor: str, action: str, subject: str, refusal: UmecError) -> None:
        await self._audit.append(
            session,
            actor=actor,
            action=action,
            subject=subject,
            outcome="refused",
            code=refusal.code,
            now=self._clock(),
        )
