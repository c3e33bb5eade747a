"""Grace: which older versions of an image count beside a newer one, and until when, as the newer one's signer says.

    {"from_version": 4, "until": "2034-11-29T12:00:00Z"}

The time is part of what is signed, so it is the same for every verifier, and nobody but the signer prolongs it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, Field

from umec_attest.errors import ReferenceInvalid
from umec_attest.reference.values import Wire

__all__ = ["MAX_GRACE", "Grace", "WireGrace", "parse_grace", "render_grace"]

MAX_GRACE: Final = timedelta(days=30)
"""From the time of issue on. A node that gets no update in a month is one that somebody has to look after."""


class WireGrace(Wire):
    """A grace in a predicate."""

    from_version: Annotated[int, Field(ge=1, le=2**53)]
    until: Annotated[AwareDatetime, Field(strict=False)]


@dataclass(frozen=True, slots=True)
class Grace:
    """Versions from `from_version` on count beside the set that says so, until `until`."""

    from_version: int
    until: datetime


def parse_grace(wire: WireGrace | None, *, version: int, issued: datetime, expires: datetime) -> Grace | None:
    """Return the grace that a set of this version, with these times, gives; `ReferenceInvalid` for one that none may.

    It names versions that are older, and ends after the set was issued, within `MAX_GRACE`, and not after the set.
    """
    if wire is None:
        return None
    if wire.from_version >= version:
        raise ReferenceInvalid(f"its grace is for versions from {wire.from_version} on, and it is version {version}")
    if not issued < wire.until <= min(issued + MAX_GRACE, expires):
        raise ReferenceInvalid(f"its grace ends before it begins, after the set, or after more than {MAX_GRACE.days} d")
    return Grace(wire.from_version, wire.until.astimezone(UTC))


def render_grace(grace: Grace) -> dict[str, Any]:
    """Return a grace as `parse_grace` reads it."""
    until = grace.until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"from_version": grace.from_version, "until": until}
