"""Boots of open boxes: announced before by an operator or the node itself, and cleared by an operator afterwards."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.resets import ResetWatch, announced, cleared, covered, own_pause
from umec_attest.service.errors import AnnouncementTooSoon, NodeClassOther, ResetNotPending
from umec_attest.service.nodes.decisions import Decisions
from umec_attest.service.nodes.schemas import Announcement, Decision, NodeClass
from umec_attest.service.tables import NodeRow
from umec_attest.service.wire import instant

__all__ = ["RebootService"]

_ANNOUNCE: Final = "node.announce-reboot"


class RebootService:
    """Keeps what is announced of boots, and what is to be cleared. A round that is under way meanwhile is refused."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    async def announce(self, node_id: str, announcement: Announcement, *, actor: str) -> dict[str, Any]:
        """Announce the next boot of a node, in the place of an announcement that was not used."""

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            await self._announced(session, node, _watch(node), announcement, now, actor=actor)

        return await self._decisions.decide(_ANNOUNCE, node_id, actor, work)

    async def announce_own(self, node_id: str, announcement: Announcement) -> dict[str, Any]:
        """Announce the next boot in the name of the node itself; what an announcement covers changes nothing.

        Raises `AnnouncementTooSoon` where the node announced another one just now: each is written down.
        """

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            watch, until = _watch(node), now + timedelta(seconds=announcement.seconds)
            if covered(watch, now, until=until, resets=announcement.resets):
                return
            pause = own_pause(watch, now)
            if pause:
                raise AnnouncementTooSoon(
                    f"node {node.id} has announced a boot just now", retry_after=pause.total_seconds()
                )
            watch = replace(watch, own_at=now.isoformat())
            await self._announced(session, node, watch, announcement, now, actor=node.id)

        return await self._decisions.decide(_ANNOUNCE, node_id, node_id, work, own=True)

    async def _announced(
        self,
        session: AsyncSession,
        node: NodeRow,
        watch: ResetWatch,
        announcement: Announcement,
        now: datetime,
        *,
        actor: str,
    ) -> None:
        until = now + timedelta(seconds=announcement.seconds)
        node.reset_watch = announced(watch, until=until, resets=announcement.resets).to_json()
        facts = {"until": instant(until), "resets": announcement.resets, "reason": announcement.reason}
        await self._decisions.write_down(session, _ANNOUNCE, node, now, actor=actor, facts=facts)

    async def clear(self, node_id: str, decision: Decision, *, actor: str) -> dict[str, Any]:
        """Take it that somebody has looked at the box: its next good round makes the node trusted."""

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            watch = _watch(node)
            if watch.unannounced is None:
                raise ResetNotPending(f"every boot of node {node.id} was announced or cleared")
            node.reset_watch = cleared(watch).to_json()
            facts = {"reset_count": watch.unannounced, "reason": decision.reason}
            await self._decisions.write_down(session, "node.clear-reset", node, now, actor=actor, facts=facts)

        return await self._decisions.decide("node.clear-reset", node_id, actor, work)


def _watch(node: NodeRow) -> ResetWatch:
    if node.node_class != NodeClass.OPEN_BOX.value:
        raise NodeClassOther(f"node {node.id} is of the class {node.node_class}: its boots need no announcement")
    return ResetWatch.from_json(node.reset_watch)
