"""`POST /images/v1/promotions` and `GET /images/v1/promotion-key`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from umec_core.http import require
from umec_core.jose import public_jwk
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_images.promotion.question import Approver, Wish
from umec_images.promotion.service import Promoted, Promoter
from umec_images.statements.summary import Stage

__all__ = ["PromotionMade", "PromotionWanted", "Reason", "promotion_router"]

Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line, for whoever asks later why."""
Hook = Callable[[Principal, Wish, Promoted], Awaitable[None]]


class PromotionWanted(BaseModel):
    """What to promote, and where to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Annotated[str, Field(max_length=255)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    stage: Stage
    rollback: Reason | None = None
    """Why an operator goes back to an earlier version than was promoted there before."""
    minimum: bool = False
    """Whether no earlier version may start any more, from now on: a wish for operators only."""


class PromotionMade(BaseModel):
    """The referrer that holds the signed summary, and who allowed it."""

    vsa_digest: str
    policies: tuple[str, ...]
    policy_sha256: str
    version: str | None
    """The semantic version of the image, if it states one."""


def promotion_router(
    promoter: Promoter, verifier: TokenVerifier, *, issuer: str, promoted: Hook | None = None
) -> APIRouter:
    """Return the routes. `issuer` is the authorization server: its clients are named `{issuer}/identity/v1/clients/ID`.

    `promoted` is called after each promotion: it logs what was attached, and raises the minimum that was wished for.
    """
    router = APIRouter(prefix="/images/v1")
    approver = require(verifier, "images:promote")

    @router.post("/promotions", status_code=201)
    async def promote(wanted: PromotionWanted, principal: Annotated[Principal, Depends(approver)]) -> PromotionMade:
        who = Approver(f"{issuer}/identity/v1/clients/{principal.client_id}", principal.tenant)
        wish = Wish(wanted.repository, wanted.digest, wanted.stage, wanted.rollback, wanted.minimum)
        made = await promoter.promote(who, wish)
        if promoted is not None:
            await promoted(principal, wish, made)
        return PromotionMade(
            vsa_digest=made.vsa_digest,
            policies=made.policies,
            policy_sha256=made.summary.policy_digest,
            version=None if made.version is None else made.version.text,
        )

    @router.get("/promotion-key")
    async def promotion_key(_request: Request) -> dict[str, Any]:
        return dict(public_jwk(promoter.public_key))

    return router
