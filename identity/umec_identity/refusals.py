"""Refusals in the authorization server's audit log. A refused request has used up what it used."""

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core import refusals
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.store import Store
from umec_identity.authentication.service import Authenticated
from umec_identity.rows import consume

__all__ = ["Refusals"]


class Refusals(refusals.Refusals):
    """Records what the authorization server refused."""

    def __init__(self, store: Store, *, audit: AuditLog, clock: Clock) -> None:
        super().__init__(store, audit, service="identity")
        self._clock = clock

    async def authenticated(self, action: str, who: Authenticated, subject: str, refusal: UmecError) -> None:
        """Log a refusal to a client that proved itself, and use up what it used: a refused request is not repeated."""

        async def use_up(session: AsyncSession) -> None:
            for one in who.used:
                await consume(session, one)

        await self.known(action, subject, refusal, self._clock(), actor=who.client_id, also=use_up)

    async def unauthenticated(self, action: str, address: str, refusal: UmecError) -> None:
        """Log a refusal to somebody who proved nothing, unless that address has had many."""
        await self.stranger(action, address, refusal, self._clock(), address=address)
