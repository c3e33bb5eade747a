"""Bodies about nodes."""

from pydantic import Field

from umec_attest.service.wire import Id, WireModel

__all__ = ["Approval", "Decision"]


class Approval(WireModel):
    """POST /attest/v1/nodes/{node}/approve: to whom the node belongs, where no ticket said it."""

    tenant: Id | None = None
    image: Id | None = None


class Decision(WireModel):
    """POST …/quarantine, …/readmit, …/revoke."""

    reason: str = Field(default="", max_length=200)
