"""Owners of images, who approve their states: to what node keys have to be bound, as the newest reference set says.

It says so also when its time is over: else keys could be had unbound by waiting.
"""

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.node_binding import check_binding, owner_policy
from umec_attest.service.references.filed import FiledReferences
from umec_attest.tpm.public import Public

__all__ = ["ImageOwners"]


class ImageOwners:
    """Checks node keys of images."""

    def __init__(self, filed: FiledReferences) -> None:
        self._filed = filed

    async def check(self, image: str, node_key: Public, session: AsyncSession | None = None) -> None:
        """Check that a node key is bound as the owner of its image wants it; where there is none, that it is unbound.

        In the transaction of a `session`, what another one before it filed counts, though it may not be committed yet.
        Errors: `NodeKeyUnbound`, `NodeKeyPolicy`; `ReferenceInvalid`, `ReferenceSignature` where nobody can say.
        """
        newest = await self._filed.newest(image, session)
        owner = None if newest is None else newest.owner
        check_binding(node_key, None if owner is None else owner_policy(owner, image))
