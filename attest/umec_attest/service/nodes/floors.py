"""How far a node may go back: an operator lowers the floor of its versions (`umec_attest.floors`)."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.floors import VersionFloor, lowered
from umec_attest.service.errors import VersionNotBarred
from umec_attest.service.nodes.decisions import Decisions
from umec_attest.service.nodes.schemas import AllowedVersion
from umec_attest.service.tables import NodeRow

__all__ = ["FloorService"]

_ALLOW: Final = "node.allow-version"


class FloorService:
    """Lowers floors. A round that is under way meanwhile is refused."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    async def allow(self, node_id: str, allowed: AllowedVersion, *, actor: str) -> dict[str, Any]:
        """Let a node go back to a version of its image, where that counts; raises `VersionNotBarred` if it may already.

        A node that fell by it needs a new boot all the same.
        """

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            known = VersionFloor.from_json(node.version_floor)
            if known.image != node.image or allowed.version >= known.floor:
                raise VersionNotBarred(f"node {node.id} may run version {allowed.version} already")
            node.version_floor = lowered(known, allowed.version).to_json()
            facts = {"from": known.floor, "to": allowed.version, "image": node.image, "reason": allowed.reason}
            await self._decisions.write_down(session, _ALLOW, node, now, actor=actor, facts=facts)

        return await self._decisions.decide(_ALLOW, node_id, actor, work)
