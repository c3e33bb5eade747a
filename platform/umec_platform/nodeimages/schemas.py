"""Orders of node images, and what nodes report of them, on the wire."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from umec_platform.tenants.schemas import Id

__all__ = ["Digest", "ImageOrder", "ImageReport", "Repository"]

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Repository = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}/[a-z0-9._-]{1,191}$")]
Fleet = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}/[a-z0-9][a-z0-9-]{0,62}$")]
Version = Annotated[int, Field(ge=1, lt=2**31)]


class ImageOrder(BaseModel):
    """PUT /platform/v1/node-images: for one node, or for the fleet TENANT/NAME, the tenant's nodes with that image.

    `again` has it tried once more where it failed before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Repository
    digest: Digest
    node: Id | None = None
    fleet: Fleet | None = None
    again: bool = False
    reason: Annotated[str, StringConstraints(max_length=200)] = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.node is None) is (self.fleet is None):
            raise ValueError("an order is for a node, or for a fleet")
        return self


class ImageReport(BaseModel):
    """POST /platform/v1/node-image: what a node says of its image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Id | None
    running: Version | None
    confirmed: Version | None
    phase: Literal["none", "writing", "staged", "trial", "failed"] | None
    version: Annotated[int, Field(ge=0, lt=2**31)] | None
    manifest: Digest | None
    digest: Digest | None
    code: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")] | None
    detail: Annotated[str, StringConstraints(max_length=500)]
