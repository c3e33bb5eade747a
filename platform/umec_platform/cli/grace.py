"""How long older versions of an image count beside a newer one, as people say it: 12h, 7d."""

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from umec_core.errors import Invalid

if TYPE_CHECKING:
    from umec_attest.reference import Grace

__all__ = ["GraceFrom", "GraceLength", "grace_of", "period"]

GraceLength = Annotated[
    str | None, typer.Option("--grace", help="How long older versions count beside it, e.g. 12h or 7d; 30d at most.")
]
GraceFrom = Annotated[
    int | None, typer.Option("--grace-from", min=1, help="The oldest version of them (default: the one before).")
]

_PERIOD: Final = re.compile(r"(\d{1,5})([smhd])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def period(text: str) -> timedelta:
    """Return a time as people write it; raises `Invalid`."""
    found = _PERIOD.fullmatch(text)
    if found is None and text != "0":
        raise Invalid(f"{text!r} is no time", advice="write a number and one of s, m, h, d: 90m, 24h, 7d; or 0")
    return timedelta(0) if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def grace_of(length: str | None, since: int | None, *, version: int, now: datetime) -> "Grace | None":
    """Return the grace that a set of this version gives, from now on; None where it replaces all others at once."""
    from umec_attest.reference import Grace

    lasting = timedelta(0) if length is None else period(length)
    if lasting:
        return Grace(max(version - 1, 1) if since is None else since, now + lasting)
    if since is not None:
        raise Invalid("--grace-from is nothing without --grace")
    return None
