"""Bodies about tickets."""

from typing import Final

from pydantic import Field

from umec_attest.service.wire import Id, Sha256, WireModel

__all__ = ["TicketRequest"]

MAX_LIFETIME: Final = 7 * 24 * 3600
"""Seconds; a node that is shipped today is switched on within the week, or gets a new ticket."""


class TicketRequest(WireModel):
    """POST /attest/v1/tickets."""

    asset: Id
    tenant: Id
    image: Id
    ek_sha256: Sha256
    lifetime_seconds: int = Field(default=3600, ge=1, le=MAX_LIFETIME)
