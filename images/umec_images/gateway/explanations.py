"""`GET /images/v1/admission`: would this start, and if not, why not? It decides nothing and is remembered by nobody."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from umec_core.clock import Clock
from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_images.admission.admit import Terms
from umec_images.explain.admission import explain_admission
from umec_images.gateway.access import PULL, allow
from umec_images.gateway.errors import TenantForeign
from umec_images.promotion.evidence import Registry
from umec_images.statements.summary import Stage

__all__ = ["explanation_router"]

Repository = Annotated[str, Query(max_length=255)]
Digest = Annotated[str, Query(pattern=r"^sha256:[0-9a-f]{64}$")]
Tenant = Annotated[str, Query(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


def explanation_router(
    registry: Registry, verifier: TokenVerifier, *, terms: Callable[[], Terms], clock: Clock
) -> APIRouter:
    """Return the route; `terms` are what an admission is judged by at this moment.

    A tenant asks about its own starts and repositories, an operator about all.
    """
    router = APIRouter(prefix="/images/v1")
    reader = require(verifier, PULL)

    @router.get("/admission")
    async def admission(
        tenant: Tenant,
        repository: Repository,
        digest: Digest,
        principal: Annotated[Principal, Depends(reader)],
        stage: Stage = "production",
    ) -> dict[str, Any]:
        allow(principal, repository, PULL)
        if principal.tenant not in (None, tenant):
            raise TenantForeign(f"the token is of the tenant {principal.tenant}, not of {tenant}")
        explained = await explain_admission(
            tenant=tenant,
            repository=repository,
            digest=digest,
            stage=stage,
            registry=registry,
            terms=terms(),
            now=clock(),
        )
        return explained.to_json()

    return router
