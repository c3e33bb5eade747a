"""Refusals in the audit log: all that operators meet, of strangers so many and no more; the rest is counted there.

Nobody fills a disk by being refused, and nobody pushes the refusals of others out of the log: each address has its own
quota. One entry a minute tells how many were not written, so that silence in the log is never an attacker's work.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.errors import Kind, UmecError
from umec_core.store import Store

__all__ = ["MOST_OF_ADDRESS", "Refusals"]

PERIOD: Final = timedelta(minutes=1)
MOST_OF_ADDRESS: Final = 30
"""Refusals a minute of one address that are written, as long as it has not proved who it is."""
MOST_OF_ALL: Final = 600
"""Refusals a minute of all strangers that are written: some 200 KB, however many addresses somebody has."""
MOST_ADDRESSES: Final = 1000
"""Addresses that the entry about what was not written tells apart."""

log = structlog.get_logger("umec.attest")


class Refusals:
    """Records what was refused, under the code that the caller was told, each in a transaction of its own.

    Malformed input and our own absence are no refusals.
    """

    def __init__(self, store: Store, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit
        self._period = 0
        self._written: Counter[str] = Counter()
        self._unwritten: Counter[str] = Counter()
        self._addresses: set[str] = set()

    async def operator(self, action: str, subject: str, error: UmecError, now: datetime, *, actor: str) -> None:
        """Write a refusal to somebody who proved who they are."""
        log.warning("refused", action=action, subject=subject, code=error.code, actor=actor)
        if error.kind not in {Kind.INVALID, Kind.UNAVAILABLE}:
            await self._append(actor, action, subject, now, code=error.code, facts={})

    async def stranger(self, action: str, subject: str, error: UmecError, now: datetime, *, address: str) -> None:
        """Write a refusal to somebody who proved nothing, or count it; `subject` is what they claim to be."""
        log.warning("refused", action=action, subject=subject, code=error.code, address=address)
        if error.kind in {Kind.INVALID, Kind.UNAVAILABLE}:
            return
        await self.summarise(now)
        if self._room(address):
            facts = {"address": address}
            await self._append("unauthenticated", action, subject, now, code=error.code, facts=facts)
            return
        self._unwritten[f"{action} {error.code}"] += 1
        if len(self._addresses) < MOST_ADDRESSES:
            self._addresses.add(address)

    async def summarise(self, now: datetime, *, early: bool = False) -> None:
        """Tell how many refusals were not written, once their minute is over (or `early`: the service ends)."""
        period = int(now.timestamp() // PERIOD.total_seconds())
        if period == self._period and not early:
            return
        self._period = period
        self._written.clear()
        if not self._unwritten:
            return
        facts = {
            "count": self._unwritten.total(),
            "addresses": len(self._addresses),
            "codes": dict(self._unwritten),
        }
        self._unwritten.clear()
        self._addresses.clear()
        await self._append("verifier", "refusal.unlogged", "unauthenticated", now, code="too-many", facts=facts)

    def _room(self, address: str) -> bool:
        if self._written[address] >= MOST_OF_ADDRESS or self._written.total() >= MOST_OF_ALL:
            if not self._written[address]:
                del self._written[address]  # what is counted for a minute stays bounded by what was written
            return False
        self._written[address] += 1
        return True

    async def _append(
        self, actor: str, action: str, subject: str, now: datetime, *, code: str, facts: Mapping[str, Any]
    ) -> None:
        async def work(session: AsyncSession) -> None:
            await self._audit.append(
                session,
                actor=actor,
                action=action,
                subject=subject,
                outcome="refused",
                code=code,
                facts=facts,
                now=now,
            )

        await self._store.write(work)
