"""`/images/v1/denials` and `/images/v1/minimums`: what operators deny. Everything needs the scope `images:admin`."""

from typing import Annotated

from fastapi import APIRouter, Depends

from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_images.denials.schemas import (
    DenialsView,
    DenialView,
    DenialWanted,
    DenyListChanged,
    Digest,
    MinimumChanged,
    MinimumView,
    MinimumWanted,
)
from umec_images.denials.service import Denials
from umec_images.oci.version import parse_version

__all__ = ["denials_router"]


def denials_router(denials: Denials, verifier: TokenVerifier) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/images/v1")
    operator = require(verifier, "images:admin")
    Operator = Annotated[Principal, Depends(operator)]  # noqa: N806 - a type

    @router.post("/denials", status_code=201)
    async def deny(wanted: DenialWanted, principal: Operator) -> DenyListChanged:
        changed = await denials.deny(principal.client_id, wanted.digest, wanted.reason)
        return DenyListChanged(digest=wanted.digest, version=changed.version)

    @router.delete("/denials/{digest}")
    async def allow(digest: Digest, principal: Operator) -> DenyListChanged:
        changed = await denials.allow(principal.client_id, digest)
        return DenyListChanged(digest=digest, version=changed.version)

    @router.put("/minimums")
    async def set_minimum(wanted: MinimumWanted, principal: Operator) -> MinimumChanged:
        minimum = None if wanted.version is None else parse_version(wanted.version)
        changed = await denials.set_minimum(
            principal.client_id, wanted.repository, minimum, wanted.reason, lower=wanted.lower
        )
        return MinimumChanged(repository=wanted.repository, minimum=wanted.version, version=changed.version)

    @router.get("/denials", dependencies=[Depends(operator)])
    async def listing() -> DenialsView:
        found = await denials.listing()
        shown = [
            DenialView(digest=each.digest, reason=each.reason, actor=each.actor, denied_at=each.denied_at)
            for each in found.denials
        ]
        minimums = [
            MinimumView(
                repository=each.repository,
                minimum=each.version.text,
                reason=each.reason,
                actor=each.actor,
                set_at=each.set_at,
            )
            for each in found.minimums
        ]
        return DenialsView(version=found.version, denials=shown, minimums=minimums)

    return router
