"""Hosts: made by an operator; what their nodes are worth is written down at once, with all that follows."""

from collections.abc import Iterable, Sequence

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.standing import StandingEntry, StandingView
from umec_platform.effects import Ledger
from umec_platform.errors import AlreadyThere, NoHost
from umec_platform.hosts.schemas import BY_RELAY, NewHost
from umec_platform.standing import consequence
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.instances import InstanceRow
from umec_platform.tables.services import ServiceRow

__all__ = ["Hosts"]


class Hosts:
    """Makes and lists hosts, and follows the standing of their nodes."""

    def __init__(self, ledger: Ledger, view: StandingView) -> None:
        self._ledger = ledger
        self._view = view

    async def create(self, actor: str, wish: NewHost) -> HostRow:
        """Make a host; raises `AlreadyThere` if its id or its node is taken."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> HostRow:
            taken = select(HostRow.id).where(or_(HostRow.id == wish.id, HostRow.node == wish.node))
            if await session.scalar(taken) is not None:
                raise AlreadyThere(f"host {wish.id} or a host of node {wish.node} exists already")
            row = HostRow(id=wish.id, node=wish.node, netd=wish.netd, created_at=now)
            known = self._view.entries.get(wish.node)
            if known is not None:
                _take_over(row, known)
            session.add(row)
            facts = {"node": wish.node, "netd": wish.netd}
            await self._ledger.record(session, actor=actor, action="host.create", subject=row.id, facts=facts, now=now)
            await self._ledger.look_at(session, row.id, now)
            return row

        return await self._ledger.write(work)

    async def list(self) -> Sequence[HostRow]:
        """Return all hosts, by id."""
        async with self._ledger.store.read() as session:
            return list(await session.scalars(select(HostRow).order_by(HostRow.id)))

    async def by_relay(self, node: str) -> HostRow:
        """Return the host that is reached by the relay of a node; raises `NoHost`."""
        query = select(HostRow).where(HostRow.node == node, HostRow.netd == f"{BY_RELAY}{node}")
        async with self._ledger.store.read() as session:
            row = await session.scalar(query)
        if row is None:
            raise NoHost(f"no host is reached by a relay of node {node}", advice="umec host add HOST --relay")
        return row

    async def on_standing(self, entries: Iterable[StandingEntry]) -> None:
        """Write down what nodes are worth now: host, services and effects change in one transaction.

        To be told the same again changes nothing, so that a follower may repeat itself.
        """
        newest = {entry.node: entry for entry in entries}
        if not newest:
            return
        await self._ledger.write(lambda session: self._follow(session, newest))

    async def _follow(self, session: AsyncSession, newest: dict[str, StandingEntry]) -> None:
        now = self._ledger.clock()
        for row in await session.scalars(select(HostRow).where(HostRow.node.in_(newest))):
            entry = newest[row.node]
            if (row.standing, row.generation) == (entry.standing.value, entry.generation):
                continue
            before = row.standing
            _take_over(row, entry)
            follows = consequence(row.standing)
            await session.execute(
                update(ServiceRow)
                .where(ServiceRow.host == row.id)
                .values(suspended=follows.suspended, withdrawn=follows.withdrawn, version=ServiceRow.version + 1)
            )
            # What does not run does not serve, however well its node stands.
            down = select(InstanceRow.id).where(InstanceRow.host == row.id, InstanceRow.address.is_(None))
            await session.execute(update(ServiceRow).where(ServiceRow.instance.in_(down)).values(suspended=True))
            facts = {"node": row.node, "from": before, "to": row.standing, "generation": row.generation}
            await self._ledger.record(
                session, actor="verifier", action="host.standing", subject=row.id, facts=facts, now=now
            )
            await self._ledger.look_at(session, row.id, now)


def _take_over(row: HostRow, entry: StandingEntry) -> None:
    row.standing, row.generation, row.changed_at = entry.standing.value, entry.generation, entry.changed_at
