"""The audit log of the images service: certificates, pushed manifests, promotions, denials, and damaged content.

Refusals are written where somebody known was refused a change, or where stored bytes are not what they were: strangers
are counted, and cannot make the log grow.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.store import Store

__all__ = ["Journal"]

MAX_SUBJECT: Final = 512
"""Characters of what an entry is about; a repository with a digest has at most 327."""


class Journal:
    """Writes what happened: of content, which lies in another store, each entry in a transaction of its own."""

    def __init__(self, store: Store, audit: AuditLog, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock

    async def done(self, actor: str, action: str, subject: str, facts: Mapping[str, Any] | None = None) -> None:
        """Record that `actor` did `action` to `subject`; returns once that is durable."""
        await self._write(actor, action, subject, None, facts)

    async def refused(self, actor: str, action: str, subject: str, code: str) -> None:
        """Record that `action` was refused with `code`."""
        await self._write(actor, action, subject, code, None)

    async def append(
        self, session: AsyncSession, actor: str, action: str, subject: str, facts: Mapping[str, Any]
    ) -> None:
        """Record what `actor` did in the transaction in which it is done."""
        await self._append(session, actor, action, subject, None, facts)

    async def export(self) -> dict[str, Any]:
        """Return the log with a signed checkpoint."""
        async with self._store.read() as session:
            return await self._audit.export(session)

    async def _write(
        self, actor: str, action: str, subject: str, code: str | None, facts: Mapping[str, Any] | None
    ) -> None:
        await self._store.write(lambda session: self._append(session, actor, action, subject, code, facts))

    async def _append(
        self,
        session: AsyncSession,
        actor: str,
        action: str,
        subject: str,
        code: str | None,
        facts: Mapping[str, Any] | None,
    ) -> None:
        await self._audit.append(
            session,
            actor=actor,
            action=action,
            subject=subject[:MAX_SUBJECT],
            outcome="done" if code is None else "refused",
            code=code,
            facts=facts,
            now=self._clock(),
        )
