"""GET /attest/v1/standings and the keys that statements and results are signed with."""

from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from fastapi import APIRouter, Depends, Query

from umec_attest.service.access import Access
from umec_attest.service.standings.feed import MAX_WAIT, StandingFeed
from umec_attest.service.wire import Id
from umec_core.errors import Forbidden
from umec_core.jose import KeySet
from umec_core.principal import Principal

__all__ = ["NotANode", "standings_router"]


class NotANode(Forbidden):
    """Somebody who is no node asks for what only a node has."""

    code = "not-a-node"


def standings_router(feed: StandingFeed, access: Access, key: EllipticCurvePublicKey) -> APIRouter:
    """Return the routes of the feed; the keys are public."""
    router = APIRouter(prefix="/attest/v1")
    jwks = KeySet([key]).jwks()

    @router.get("/jwks")
    async def read_jwks() -> dict[str, list[dict[str, str]]]:
        return jwks

    @router.get("/standings", dependencies=[Depends(access.require("standings:read"))])
    async def follow(
        after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0.0,
        node: Id | None = None,
    ) -> dict[str, str]:
        return {"statement": await feed.statement(after=after, wait=wait, node=node)}

    @router.get("/standings/own")
    async def own(principal: Annotated[Principal, Depends(access.require("node:host"))]) -> dict[str, str]:
        """Show a node what is said of it, signed; for its certificate-bound token and for no other node."""
        if principal.node is None:
            raise NotANode("only a node has a standing of its own")
        return {"statement": await feed.statement(after=0, wait=0.0, node=principal.node)}

    return router
