"""/identity/v1/clients: registration of clients.

identity:clients      any client, and to see them
identity:instances    to register and remove application instances
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_identity.clients.instances import CLIENTS, INSTANCES, check_instance
from umec_identity.clients.schemas import ClientIn
from umec_identity.clients.service import Clients

__all__ = ["router"]

Identifier = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


def router(clients: Clients, verifier: TokenVerifier, *, mp1: str) -> APIRouter:
    """Return the endpoints; `mp1` is the one resource of application instances."""
    api = APIRouter(prefix="/identity/v1/clients")
    may = require(verifier, CLIENTS)
    may_instances = require(verifier, CLIENTS, INSTANCES, either=True)

    @api.post("", status_code=201)
    async def register(wanted: ClientIn, caller: Annotated[Principal, Depends(may_instances)]) -> dict[str, Any]:
        if CLIENTS not in caller.scopes:
            check_instance(wanted, mp1=mp1)
        return (await clients.register(wanted, actor=caller.client_id)).describe()

    @api.get("")
    async def show_all(_caller: Annotated[Principal, Depends(may)]) -> dict[str, Any]:
        return {"clients": [client.describe() for client in await clients.list()]}

    @api.get("/{client_id}")
    async def show(client_id: Identifier, _caller: Annotated[Principal, Depends(may)]) -> dict[str, Any]:
        return (await clients.get(client_id)).describe()

    @api.delete("/{client_id}", status_code=204)
    async def remove(client_id: Identifier, caller: Annotated[Principal, Depends(may_instances)]) -> Response:
        await clients.remove(client_id, actor=caller.client_id, instances_only=CLIENTS not in caller.scopes)
        return Response(status_code=204)

    return api
