"""Refusals in an audit log: all to those who proved who they are, and of strangers so many and no more.

Nobody fills a disk by being refused. Each address has its own quota, so that one alone pushes no refusal of another out
of the log; all have one together, which somebody with twenty addresses can use up. What is not written is counted: one
entry a minute tells how many, for which actions and reasons, and of how many addresses.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.errors import UmecError
from umec_core.store import Store

__all__ = ["MOST_OF_ADDRESS", "MOST_OF_ALL", "Refusals"]

PERIOD: Final = timedelta(minutes=1)
MOST_OF_ADDRESS: Final = 30
"""Refusals a minute of one address that are written, as long as it has not proved who it is."""
MOST_OF_ALL: Final = 600
"""Refusals a minute of all strangers that are written: the quotas of 20 addresses, some 200 KB."""
MOST_ADDRESSES: Final = 1000
"""Addresses that the entry about what was not written tells apart."""
MOST_SUBJECT: Final = 512
"""Characters of what an entry is about: somebody who is refused chooses it. A repository with a digest has 327."""

Work = Callable[[AsyncSession], Awaitable[None]]


class Refusals:
    """Records refusals under the code that the caller was told, each in a transaction of its own."""

    def __init__(self, store: Store, audit: AuditLog, *, service: str) -> None:
        """`service` is who tells of what was not written."""
        self._store = store
        self._audit = audit
        self._service = service
        self._period = 0
        self._written: Counter[str] = Counter()
        self._unwritten: Counter[str] = Counter()
        self._addresses: set[str] = set()

    async def known(
        self, action: str, subject: str, error: UmecError, now: datetime, *, actor: str, also: Work | None = None
    ) -> None:
        """Write a refusal to somebody who proved who they are; `also` is done in the same transaction."""
        await self._append(actor, action, subject, now, code=error.code, facts={}, also=also)

    async def stranger(self, action: str, subject: str, error: UmecError, now: datetime, *, address: str) -> None:
        """Write a refusal to somebody who proved nothing, or count it; `subject` is what they claim to be."""
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
        await self._append(self._service, "refusal.unlogged", "unauthenticated", now, code="too-many", facts=facts)

    def _room(self, address: str) -> bool:
        if self._written[address] >= MOST_OF_ADDRESS or self._written.total() >= MOST_OF_ALL:
            if not self._written[address]:
                del self._written[address]  # what is counted for a minute stays bounded by what was written
            return False
        self._written[address] += 1
        return True

    async def _append(
        self,
        actor: str,
        action: str,
        subject: str,
        now: datetime,
        *,
        code: str,
        facts: Mapping[str, Any],
        also: Work | None = None,
    ) -> None:
        async def work(session: AsyncSession) -> None:
            if also is not None:
                await also(session)
            await self._audit.append(
                session,
                actor=actor,
                action=action,
                subject=subject[:MOST_SUBJECT],
                outcome="refused",
                code=code,
                facts=facts,
                now=now,
            )

        await self._store.write(work)
