"""Refusals in the audit log, so many and no more: nobody can fill a disk by being refused."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.errors import Kind, UmecError
from umec_core.store import Store

__all__ = ["Refusals"]

PERIOD: Final = timedelta(minutes=1)
MOST: Final = 120
"""Refusals a minute that are written, of all callers; the rest is in the log lines and counters only."""

log = structlog.get_logger("umec.attest")


class Refusals:
    """Records what was refused, under the code that the caller was told."""

    def __init__(self, store: Store, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit
        self._period = 0
        self._count = 0

    async def record(
        self, action: str, subject: str, error: UmecError, now: datetime, *, actor: str | None = None
    ) -> None:
        """Write one refusal in a transaction of its own; `actor` is who asked, if not the subject itself.

        Malformed input and our own absence are no refusals.
        """
        if error.kind in {Kind.INVALID, Kind.UNAVAILABLE} or not self._room(now):
            log.warning("refused", action=action, subject=subject, code=error.code)
            return

        async def work(session: AsyncSession) -> None:
            await self._audit.append(
                session,
                actor=actor or subject,
                action=action,
                subject=subject,
                outcome="refused",
                code=error.code,
                now=now,
            )

        await self._store.write(work)

    def _room(self, now: datetime) -> bool:
        period = int(now.timestamp() // PERIOD.total_seconds())
        self._count = self._count + 1 if period == self._period else 1
        self._period = period
        return self._count <= MOST
