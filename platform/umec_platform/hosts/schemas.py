"""Hosts on the wire."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from umec_platform.tenants.schemas import Id

__all__ = ["NewHost"]


class NewHost(BaseModel):
    """A MEC host to be made: the node that is attested, and the unix socket of the host's netd."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Id
    node: Id
    netd: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f]{1,106}$")]
    """An absolute path; 107 octets are what an address of a unix socket holds."""
