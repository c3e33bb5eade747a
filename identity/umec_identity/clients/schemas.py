"""A client on the wire: what is registered and what is shown."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ClientId", "ClientIn", "Name"]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""An identifier of a tenant, a node or an instance."""

ClientId = Name


class ClientIn(BaseModel):
    """A client to be registered; `jwks` holds public P-256 keys only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: ClientId
    kind: Literal["application", "service", "builder", "operator"]
    tenant: Name | None = None
    node: Name | None = None
    instance: Name | None = None
    jwks: dict[str, Any]
    scopes: Annotated[list[str], Field(max_length=32)] = []
    resources: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=8)] = []
    binding: Literal["dpop", "mtls", "bearer"] = "dpop"
