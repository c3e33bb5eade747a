"""Hosts on the wire."""

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from umec_platform.tenants.schemas import Id

__all__ = ["BY_RELAY", "NewHost"]

BY_RELAY: Final = "node:"
"""Begins the address of a netd that is reached by a relay of its node."""


class NewHost(BaseModel):
    """A MEC host to be made: the node that is attested, and where the host's netd is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Id
    node: Id
    netd: Annotated[str, StringConstraints(pattern=r"^(?:/[^\x00-\x1f\x7f]{1,106}|node:[a-z0-9-]{1,63})$")]
    """A unix socket of this machine (107 octets are what its address holds), or `node:` and the node: by its relay."""

    @model_validator(mode="after")
    def _own_relay(self) -> Self:
        if self.netd.startswith(BY_RELAY) and self.netd != f"{BY_RELAY}{self.node}":
            raise ValueError("a host is reached by the relay of its own node")
        return self
