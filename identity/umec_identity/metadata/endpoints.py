"""The well-known documents."""

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from umec_core.errors import NotFound
from umec_identity.metadata.documents import discovery, resource_document, server_document
from umec_identity.settings import SCOPES, Resources

__all__ = ["router"]


def router(issuer: str, resources: Resources) -> APIRouter:
    """Return the documents of the management listener."""
    api = APIRouter()
    server, openid = server_document(issuer, resources), discovery(issuer)
    documents = {
        urlsplit(resources.by_api[name]).path: resource_document(issuer, resources.by_api[name], sorted(SCOPES[name]))
        for name in ("attest", "identity", "platform")
    }

    @api.get("/.well-known/oauth-authorization-server")
    async def show_server() -> JSONResponse:
        return _document(server)

    @api.get("/.well-known/openid-configuration")
    async def show_discovery() -> JSONResponse:
        return _document(openid)

    @api.get("/.well-known/oauth-protected-resource/{name}/v1")
    async def show_resource(name: str) -> JSONResponse:
        document = documents.get(f"/{name}/v1")
        if document is None:
            raise NotFound("there is no such resource here")
        return _document(document)

    return api


def _document(content: dict[str, Any]) -> JSONResponse:
    return JSONResponse(content, headers={"Cache-Control": "max-age=300"})
