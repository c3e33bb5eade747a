"""Bodies about tickets."""

from typing import Final

from pydantic import ConfigDict, Field

from umec_attest.service.nodes.schemas import NodeClass
from umec_attest.service.wire import Id, Sha256, WireModel

__all__ = ["AllowRequest", "TicketRequest"]

MAX_LIFETIME: Final = 7 * 24 * 3600
"""Seconds; a node that is shipped today is switched on within the week, or gets a new ticket."""
MAX_ALLOWED: Final = 366 * 24 * 3600
"""Seconds; a TPM that is not switched on within a year of its delivery is one that somebody should ask about."""


class _Assignment(WireModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    asset: Id
    tenant: Id
    image: Id
    node_class: NodeClass = Field(default=NodeClass.STANDARD, alias="class")


class AllowRequest(_Assignment):
    """PUT /attest/v1/allowed-tpms/{ek_sha256}."""

    lifetime_seconds: int = Field(default=30 * 24 * 3600, ge=1, le=MAX_ALLOWED)


class TicketRequest(_Assignment):
    """POST /attest/v1/tickets."""

    ek_sha256: Sha256
    lifetime_seconds: int = Field(default=3600, ge=1, le=MAX_LIFETIME)
