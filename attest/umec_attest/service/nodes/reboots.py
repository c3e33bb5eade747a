"""Boots of open boxes: announced before by an operator or the node itself, and cleared by an operator afterwards."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.resets import ResetWatch, announced, cleared
from umec_attest.service.errors import NodeClassOther, ResetNotPending
from umec_attest.service.nodes.decisions import Decisions
from umec_attest.service.nodes.schemas import Announcement, Decision, NodeClass
from umec_attest.service.tables import NodeRow
from umec_attest.service.wire import instant

__all__ = ["RebootService"]


class RebootService:
    """Keeps what is announced of boots, and what is to be cleared. A round that is under way meanwhile is refused."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    async def announce(self, node_id: str, announcement: Announcement, *, actor: str) -> dict[str, Any]:
        """Announce the next boot of a node, in the place of an announcement that was not used."""

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            watch, until = _watch(node), now + timedelta(seconds=announcement.seconds)
            node.reset_watch = announced(watch, until=until, resets=announcement.resets).to_json()
            facts = {"until": instant(until), "resets": announcement.resets, "reason": announcement.reason}
            await self._decisions.write_down(session, "node.announce-reboot", node, now, actor=actor, facts=facts)

        return await self._decisions.decide("node.announce-reboot", node_id, actor, work)

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
