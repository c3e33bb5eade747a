"""Bodies about nodes."""

from enum import Enum, unique
from typing import Final

from pydantic import ConfigDict, Field

from umec_attest.resets import MAX_RESETS
from umec_attest.service.wire import Id, WireModel

__all__ = ["AllowedVersion", "Announcement", "Approval", "Decision", "NodeClass"]

MAX_AHEAD: Final = 24 * 3600
"""Seconds; who plans for later announces later."""


@unique
class NodeClass(Enum):
    """What is expected of a node's surroundings. Anybody can open an open box: its boots have to be announced."""

    STANDARD = "standard"
    OPEN_BOX = "open-box"


class Approval(WireModel):
    """POST /attest/v1/nodes/{node}/approve: to whom the node belongs and what it is, where no ticket said it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    tenant: Id | None = None
    image: Id | None = None
    node_class: NodeClass = Field(default=NodeClass.STANDARD, alias="class")


class Decision(WireModel):
    """POST …/quarantine, …/readmit, …/revoke, …/clear-reset."""

    reason: str = Field(default="", max_length=200)


class Announcement(WireModel):
    """POST …/announce-reboot, and /attest/v1/reboots: the node boots at most `resets` times within `seconds`."""

    seconds: int = Field(default=900, ge=1, le=MAX_AHEAD)
    resets: int = Field(default=1, ge=1, le=MAX_RESETS)
    reason: str = Field(default="", max_length=200)


class AllowedVersion(WireModel):
    """POST …/allow-version: the version of its image that the node may go back to."""

    version: int = Field(ge=1, le=2**53)
    reason: str = Field(default="", max_length=200)
