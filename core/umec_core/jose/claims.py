"""What claims of a token look like, and whether its time is now."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from umec_core.jose.errors import JwtClaim, JwtExpired

__all__ = ["MAX_TEXT", "SKEW", "check_times", "claim_text", "claim_time"]

MAX_TEXT: Final = 512
"""Characters of a claim that names somebody or something."""

SKEW: Final = timedelta(seconds=10)
"""How far the clock of a peer may be ahead (FAPI 2.0 Security Profile, 5.3.2.1)."""


def claim_text(claims: Mapping[str, Any], name: str, *, longest: int = MAX_TEXT) -> str:
    """Return a claim that is a printable text of 1 to `longest` characters; raises `JwtClaim`."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise JwtClaim(f"{name} is not a printable text of 1 to {longest} characters")
    return value


def claim_time(claims: Mapping[str, Any], name: str) -> float:
    """Return a claim that is a NumericDate, in seconds since 1970; raises `JwtClaim`."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise JwtClaim(f"{name} is not a time in seconds")
    return float(value)


def check_times(claims: Mapping[str, Any], now: datetime, *, longest: timedelta) -> None:
    """Check that `iat` and `exp` are there, that now lies between them, and that they are at most `longest` apart.

    A clock may be `SKEW` ahead of ours; nothing is accepted after its `exp`. Raises `JwtClaim` or `JwtExpired`.
    """
    issued, expires, present = claim_time(claims, "iat"), claim_time(claims, "exp"), now.timestamp()
    ahead = present + SKEW.total_seconds()
    if issued > ahead or ("nbf" in claims and claim_time(claims, "nbf") > ahead):
        raise JwtExpired("its time has not come")
    if expires <= present:
        raise JwtExpired("its time is over")
    if expires - min(issued, present) > longest.total_seconds() + SKEW.total_seconds():
        raise JwtExpired(f"it is valid for longer than {longest.total_seconds():.0f} s")
