"""Operators write secrets and see what there is, never what it says; a node asks for its own with a round's evidence.

Whoever asks for a release shows no token: its TPM proves who it is, and only its TPM can open the answer.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from umec_attest.service.access import Access
from umec_attest.service.callers import address_of
from umec_attest.service.vault.schemas import ReleaseRequest, SecretRequest
from umec_attest.service.vault.service import SecretService
from umec_attest.service.wire import Id
from umec_core.principal import Principal

__all__ = ["secrets_router"]


def secrets_router(service: SecretService, access: Access) -> APIRouter:
    """Return the routes of secrets."""
    router = APIRouter(prefix="/attest/v1")
    reader = Annotated[Principal, Depends(access.require("attest:read"))]
    admin = Annotated[Principal, Depends(access.require("attest:admin"))]

    @router.get("/nodes/{node}/secrets")
    async def show(node: Id, principal: reader) -> dict[str, Any]:
        return {"secrets": await service.list(node, principal.tenant)}

    @router.put("/nodes/{node}/secrets/{name}")
    async def store(node: Id, name: Id, request: SecretRequest, principal: admin) -> dict[str, Any]:
        return await service.store(node, name, request, actor=principal.subject)

    @router.delete("/nodes/{node}/secrets/{name}")
    async def remove(node: Id, name: Id, principal: admin) -> dict[str, Any]:
        return await service.remove(node, name, actor=principal.subject)

    @router.post("/secrets/release")
    async def release(request: ReleaseRequest, http: Request) -> dict[str, Any]:
        return await service.release(request, address=address_of(http))

    return router
