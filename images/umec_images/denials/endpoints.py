"""`/images/v1/denials`: what operators deny. Everything needs the scope `images:admin`."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_images.denials.service import Denials

__all__ = ["DenialWanted", "DenialsView", "DenyListChanged", "denials_router"]

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line, for whoever asks later why."""


class DenialWanted(BaseModel):
    """What to deny, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: Digest
    reason: Reason


class DenyListChanged(BaseModel):
    """A digest, and the version that the list has since it was denied or allowed."""

    digest: str
    version: int


class DenialView(BaseModel):
    """One digest that is denied."""

    digest: str
    reason: str
    actor: str
    denied_at: datetime


class DenialsView(BaseModel):
    """The whole list."""

    version: int
    denials: list[DenialView]


def denials_router(denials: Denials, verifier: TokenVerifier) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/images/v1")
    operator = require(verifier, "images:admin")

    @router.post("/denials", status_code=201)
    async def deny(wanted: DenialWanted, principal: Annotated[Principal, Depends(operator)]) -> DenyListChanged:
        changed = await denials.deny(principal.client_id, wanted.digest, wanted.reason)
        return DenyListChanged(digest=wanted.digest, version=changed.version)

    @router.delete("/denials/{digest}")
    async def allow(
        digest: Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")],
        principal: Annotated[Principal, Depends(operator)],
    ) -> DenyListChanged:
        changed = await denials.allow(principal.client_id, digest)
        return DenyListChanged(digest=digest, version=changed.version)

    @router.get("/denials", dependencies=[Depends(operator)])
    async def listing() -> DenialsView:
        version, found = await denials.listing()
        shown = [
            DenialView(digest=each.digest, reason=each.reason, actor=each.actor, denied_at=each.denied_at)
            for each in found
        ]
        return DenialsView(version=version, denials=shown)

    return router
