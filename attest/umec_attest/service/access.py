"""Who may call this service: a good access token and, where it is a node's, what our own rows say of that node now.

Other APIs learn of a fall from the standing feed, a moment later. This service is where the fall is written, so here a
node's token ends in the very transaction of the fall.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends

from umec_attest.service.tables import NodeRow
from umec_core.http import require
from umec_core.principal import Principal
from umec_core.standing import Standing, StandingFallen
from umec_core.store import Store
from umec_core.tokens import TokenVerifier

__all__ = ["Access"]


class Access:
    """Makes the dependencies of routes that take an access token."""

    def __init__(self, tokens: TokenVerifier, store: Store) -> None:
        self._tokens = tokens
        self._store = store

    def require(self, *scopes: str) -> Callable[[Principal], Awaitable[Principal]]:
        """Return a dependency as `umec_core.http.require` does, which refuses (`standing-fallen`) a fallen node, too.

        That a token's node stands by the feed is checked first, so a stale feed refuses as it does everywhere.
        """

        async def allowed(principal: Annotated[Principal, Depends(require(self._tokens, *scopes))]) -> Principal:
            if principal.node is not None:
                await self._check(principal.node, principal.generation)
            return principal

        return allowed

    async def _check(self, node_id: str, generation: int | None) -> None:
        async with self._store.read() as session:
            node = await session.get(NodeRow, node_id)
        if node is None or not Standing(node.standing).stands or node.generation != generation:
            found = "unknown" if node is None else f"{node.standing} in generation {node.generation}"
            raise StandingFallen(f"node {node_id} is {found}, the token is of generation {generation}")
