"""What operators say to change the deny list, and how it is shown."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from umec_images.promotion.endpoints import Reason

__all__ = [
    "DenialView",
    "DenialWanted",
    "DenialsView",
    "DenyListChanged",
    "Digest",
    "MinimumChanged",
    "MinimumView",
    "MinimumWanted",
]

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DenialWanted(_Wish):
    """What to deny, and why."""

    digest: Digest
    reason: Reason


class MinimumWanted(_Wish):
    """The lowest version of a repository that may start from now on."""

    repository: Annotated[str, Field(max_length=255)]
    version: str | None
    """None: any version, and what states none."""
    reason: Reason
    lower: bool = False
    """Whether it may fall."""


class DenyListChanged(BaseModel):
    """A digest, and the version that the list has since it was denied or allowed."""

    digest: str
    version: int


class MinimumChanged(BaseModel):
    """The minimum of a repository, and the version that the list has since it was set."""

    repository: str
    minimum: str | None
    version: int


class DenialView(BaseModel):
    """One digest that is denied."""

    digest: str
    reason: str
    actor: str
    denied_at: datetime


class MinimumView(BaseModel):
    """The minimum of one repository."""

    repository: str
    minimum: str
    reason: str
    actor: str
    set_at: datetime


class DenialsView(BaseModel):
    """The whole list."""

    version: int
    denials: list[DenialView]
    minimums: list[MinimumView]
