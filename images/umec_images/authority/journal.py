"""The audit log of the images service: certificates, pushed manifests, promotions, denials, and damaged content.

Refusals are written where somebody known was refused a change, or where stored bytes are not what they were: strangers
are counted, and cannot make the log grow.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.refusals import Refusals
from umec_core.store import Store

__all__ = ["Journal"]


class Journal:
    """Writes what happened: of content, which lies in another store, each entry in a transaction of its own."""

    def __init__(self, store: Store, audit: AuditLog, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._refusals = Refusals(store, audit, service="images")

    async def done(self, actor: str, action: str, subject: str, facts: Mapping[str, Any] | None = None) -> None:
        """Record that `actor` did `action` to `subject`; returns once that is durable."""
        await self._store.write(lambda session: self.append(session, actor, action, subject, facts))

    async def refused(self, actor: str, action: str, subject: str, error: UmecError) -> None:
        """Record that `action` was refused to `actor`, who proved who they are."""
        await self._refusals.known(action, subject, error, self._clock(), actor=actor)

    async def append(
        self, session: AsyncSession, actor: str, action: str, subject: str, facts: Mapping[str, Any] | None
    ) -> None:
        """Record what `actor` did in the transaction in which it is done."""
        await self._audit.append(
            session, actor=actor, action=action, subject=subject, outcome="done", facts=facts, now=self._clock()
        )

    async def export(self, *, after: int = 0) -> dict[str, Any]:
        """Return the log behind its first `after` entries, with a signed checkpoint."""
        async with self._store.read() as session:
            return await self._audit.export(session, after=after)
