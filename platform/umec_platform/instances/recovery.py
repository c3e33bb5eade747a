"""Brings instances back that should run and do not: their netd or their host restarted, or their program ended.

1. An instance that its host does not run has no address: its rules are not desired, and its services are SUSPENDED.
2. It is started again by an operation like its first: admitted again, with a new decision, a new key and a new client.
   MEC 010-2 calls that OPERATE with `changeStateTo` STARTED.
3. Not before its node is trusted, and not before the pause after the last attempt is over: who is refused, or ends at
   once every time, is tried ever more seldom.
What was found and what is ordered for it are one transaction; the operation itself is run by `lifecycle`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from umec_platform.effects import Ledger
from umec_platform.instances.service import place_order
from umec_platform.standing import consequence
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.instances import COMPLETED, FAILED, INSTANTIATED, OPERATE, InstanceRow, OperationRow
from umec_platform.tables.services import ServiceRow

__all__ = ["Attempt", "Down", "Recovery", "next_attempt", "pause_before", "reasons", "why_down"]

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=5)
"""Between attempts to start an instance again; doubled after each. One that ran this long begins anew."""

KEPT: Final = 10
"""Operations of this kind that are kept of each instance; the audit log keeps them all."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The next attempt to start an instance again."""

    number: int
    due: datetime


@dataclass(frozen=True, slots=True)
class Down:
    """Why an instance that should run does not; `retry_at` is when it is tried again, if that is known."""

    code: str
    detail: str
    retry_at: datetime | None = None


def pause_before(attempt: int) -> timedelta:
    """Return how long an attempt waits after the one before it; the first does not wait."""
    if attempt <= 1:
        return timedelta(0)
    doublings: int = min(attempt - 2, 16)
    return min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)


def next_attempt(last: OperationRow | None, now: datetime) -> Attempt:
    """Return the attempt that follows the last operation that has ended."""
    if last is None or last.operation != OPERATE:
        return Attempt(1, now)
    if last.state == COMPLETED and now - last.entered_at >= LONGEST_PAUSE:
        return Attempt(1, now)
    number = _attempt_of(last) + 1
    return Attempt(number, last.entered_at + pause_before(number))


async def why_down(session: AsyncSession, row: InstanceRow, now: datetime) -> Down | None:
    """Return why an instance does not run although it should, or None if it does or need not."""
    if row.state != INSTANTIATED or row.address is not None:
        return None
    if row.busy is not None:
        return Down("instance-restarting", "the instance is being started again")
    host = await session.get(HostRow, row.host)
    last = await _last_operation(session, row.id)
    if host is None or not consequence(host.standing).admits:
        standing = "not known" if host is None or host.standing is None else host.standing
        return Down("host-not-trusted", f"the node is {standing}: it starts nothing until it is trusted")
    attempt = next_attempt(last, now)
    if last is not None and last.state == FAILED:
        return Down(last.code or "", last.detail or "", attempt.due)
    return Down("instance-ended", "the host does not run the instance; it is started again", attempt.due)


async def reasons(ledger: Ledger, rows: Iterable[InstanceRow]) -> dict[str, Down]:
    """Return why those of the instances that are down are down, by instance."""
    async with ledger.store.read() as session:
        found = {row.id: await why_down(session, row, ledger.clock()) for row in rows}
    return {instance: down for instance, down in found.items() if down is not None}


class Recovery:
    """Compares what a host runs with what it should run, and orders what is missing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def expected(self, host: str) -> dict[str, int]:
        """Return the instances that a host should run and that nobody works on, with the versions of their rows.

        To be asked before the host is: what happens to an instance in between changes its version.
        """
        async with self._ledger.store.read() as session:
            query = select(InstanceRow.id, InstanceRow.version).where(
                InstanceRow.host == host, InstanceRow.state == INSTANTIATED, InstanceRow.busy.is_(None)
            )
            return {row[0]: row[1] for row in await session.execute(query)}

    async def compare(self, host: str, expected: Mapping[str, int], running: Collection[str]) -> None:
        """Write down which of the expected instances do not run, and order those that may be started now."""
        now = self._ledger.clock()
        async with self._ledger.store.read() as session:
            missing = await self._missing(session, host, expected, running, now)
        if not missing:
            return

        async def work(session: AsyncSession) -> None:
            admits = await _admits(session, host)
            for row in await self._missing(session, host, expected, running, now):
                await self._bring_back(session, row, now, admits=admits)

        await self._ledger.write(work)

    async def _missing(
        self, session: AsyncSession, host: str, expected: Mapping[str, int], running: Collection[str], now: datetime
    ) -> list[InstanceRow]:
        """Return the instances about which something is to be written down now."""
        rows = await session.scalars(
            select(InstanceRow).where(
                InstanceRow.host == host, InstanceRow.state == INSTANTIATED, InstanceRow.busy.is_(None)
            )
        )
        admits = await _admits(session, host)
        missing = []
        for row in rows:
            if expected.get(row.id) != row.version:
                continue
            if row.address is None:
                if admits and next_attempt(await _last_operation(session, row.id), now).due <= now:
                    missing.append(row)
            elif row.id not in running:
                missing.append(row)
        return missing

    async def _bring_back(self, session: AsyncSession, row: InstanceRow, now: datetime, *, admits: bool) -> None:
        ledger = self._ledger
        if row.address is not None:  # 1
            facts = {"host": row.host, "address": row.address}
            row.address, row.ready = None, False
            row.version += 1
            await session.execute(
                update(ServiceRow)
                .where(ServiceRow.instance == row.id)
                .values(suspended=True, version=ServiceRow.version + 1)
            )
            await ledger.record(session, actor="platform", action="instance.down", subject=row.id, facts=facts, now=now)
            await ledger.look_at(session, str(row.host), now)
        attempt = next_attempt(await _last_operation(session, row.id), now)
        if not admits or attempt.due > now:  # 3
            return
        parameters = {"changeStateTo": "STARTED", "host": row.host, "attempt": attempt.number}
        await place_order(ledger, session, actor="platform", row=row, operation=OPERATE, parameters=parameters, now=now)
        await _forget_old(session, row.id)


async def _admits(session: AsyncSession, host: str) -> bool:
    return consequence((await session.get_one(HostRow, host)).standing).admits


async def _last_operation(session: AsyncSession, instance: str) -> OperationRow | None:
    return max(await _ended(session, instance), key=_order_of, default=None)


async def _forget_old(session: AsyncSession, instance: str) -> None:
    restarts = [row for row in await _ended(session, instance) if row.operation == OPERATE]
    for row in sorted(restarts, key=_order_of)[:-KEPT]:
        await session.delete(row)


async def _ended(session: AsyncSession, instance: str) -> list[OperationRow]:
    query = select(OperationRow).where(OperationRow.instance == instance, OperationRow.state.in_([COMPLETED, FAILED]))
    return list(await session.scalars(query))


def _order_of(row: OperationRow) -> tuple[datetime, int]:
    return (row.started_at, _attempt_of(row))


def _attempt_of(row: OperationRow) -> int:
    return int(row.parameters.get("attempt", 0))
