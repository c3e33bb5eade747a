"""What is decided and what follows: one transaction writes the desired state, its audit entry and its outbox row.

Effects are levels, not edges. An outbox row says only that a host, or one rule of it, has to be looked at; whoever
looks compares with the rows as they are then. So a row may be delivered twice or late, and a process that died between
decision and effect makes up for it: every host is brought to its whole desired state when the platform starts.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog, AuditMixin
from umec_core.clock import Clock
from umec_core.outbox import Dispatcher, Handler, OutboxMixin, put
from umec_core.store import Store
from umec_platform.store import Base

__all__ = ["HOST", "OPERATION", "AuditRow", "Ledger", "OutboxRow", "RuleKey"]

T = TypeVar("T")

HOST: Final = "host"
"""Topic: a host, or one rule of it, differs from what it should be. {"host", "rule"?: [instance, kind, rule]}."""

OPERATION: Final = "operation"
"""Topic: an operation on an instance has to be run. {"operation"}."""


class OutboxRow(OutboxMixin, Base):
    """What has to happen outside."""

    __tablename__ = "outbox"


class AuditRow(AuditMixin, Base):
    """What was decided, and by whom."""

    __tablename__ = "audit"


@dataclass(frozen=True, slots=True)
class RuleKey:
    """A rule of an instance; `kind` is "traffic" or "dns"."""

    instance: str
    kind: str
    rule: str


class Ledger:
    """The store of the MEC host with what must not be forgotten beside a change: audit entry and outbox row."""

    def __init__(self, store: Store, audit: AuditLog, clock: Clock) -> None:
        self.store: Final = store
        self.audit: Final = audit
        self.clock: Final = clock
        self._dispatcher: Dispatcher | None = None

    def dispatcher(self, handlers: Mapping[str, Handler]) -> Dispatcher:
        """Return the dispatcher of the outbox; writes kick it from now on."""
        self._dispatcher = Dispatcher(self.store, OutboxRow, handlers, self.clock)
        return self._dispatcher

    async def write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run a work in a transaction and let its effects begin after COMMIT."""
        result = await self.store.write(work)
        if self._dispatcher is not None:
            self._dispatcher.kick()
        return result

    async def record(
        self,
        session: AsyncSession,
        *,
        actor: str,
        action: str,
        subject: str,
        code: str | None = None,
        facts: Mapping[str, Any] | None = None,
        now: datetime,
    ) -> None:
        """Add an audit entry in the caller's transaction: done, or refused with a code."""
        outcome = "done" if code is None else "refused"
        await self.audit.append(
            session, actor=actor, action=action, subject=subject, outcome=outcome, code=code, facts=facts, now=now
        )

    async def look_at(self, session: AsyncSession, host: str, now: datetime, rule: RuleKey | None = None) -> None:
        """Ask, in the caller's transaction, for a host (or one rule of it) to be brought to its desired state."""
        payload: dict[str, Any] = {"host": host}
        if rule is not None:
            payload["rule"] = [rule.instance, rule.kind, rule.rule]
        await put(session, OutboxRow, HOST, payload, now)

    async def run_operation(self, session: AsyncSession, operation: str, now: datetime) -> None:
        """Ask, in the caller's transaction, for an operation on an instance to be run."""
        await put(session, OutboxRow, OPERATION, {"operation": operation}, now)
