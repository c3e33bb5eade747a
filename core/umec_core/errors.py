"""The root of every error that µMEC raises on purpose.

    UmecError                      code, kind, detail, advice
    └── one tree for each package  (umec_attest.errors.AttestError, …)

An error carries a stable `code` (kebab-case, never reused for something else) that operators, clients and tests rely
on, and a `kind` that says what sort of refusal it is. Errors know no HTTP: `umec_core.problems` maps a kind to a
status, and what may help later says after how many seconds (`retry_after`).
"""

from enum import Enum, unique
from typing import ClassVar

__all__ = [
    "Conflict",
    "Forbidden",
    "Invalid",
    "Kind",
    "NotFound",
    "Refused",
    "UmecError",
    "Unauthenticated",
    "Unavailable",
]


@unique
class Kind(Enum):
    """What sort of refusal an error is."""

    INVALID = "invalid"
    """The input is malformed."""
    UNAUTHENTICATED = "unauthenticated"
    """Nobody, or nobody whom we believe, asks."""
    FORBIDDEN = "forbidden"
    """Somebody we know asks for what they may not have."""
    REFUSED = "refused"
    """The input is well-formed, and what it proves is not good enough."""
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    PRECONDITION = "precondition"
    TOO_LARGE = "too-large"
    TOO_MANY = "too-many"
    TIMEOUT = "timeout"
    """The caller did not say in time what they want."""
    UNAVAILABLE = "unavailable"
    """Something that the answer needs is not there right now; trying again later may help."""


class UmecError(Exception):
    """An error with a stable code.

    A subclass is one reason: it sets `code` and `kind` (or inherits its kind). `detail` says what was found and what
    was expected; `advice` says what the reader can do about it.
    """

    code: ClassVar[str] = "internal-error"
    kind: ClassVar[Kind] = Kind.REFUSED
    retry_after: float | None = None

    def __init__(self, detail: str, *, advice: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice


class Invalid(UmecError):
    """The input is malformed."""

    code = "invalid-input"
    kind = Kind.INVALID


class Unauthenticated(UmecError):
    """Nobody, or nobody whom we believe, asks."""

    code = "unauthenticated"
    kind = Kind.UNAUTHENTICATED


class Forbidden(UmecError):
    """Somebody we know asks for what they may not have."""

    code = "forbidden"
    kind = Kind.FORBIDDEN


class Refused(UmecError):
    """The input is well-formed, and what it proves is not good enough."""

    code = "refused"
    kind = Kind.REFUSED


class NotFound(UmecError):
    """There is no such thing, or none that the caller may see."""

    code = "not-found"
    kind = Kind.NOT_FOUND


class Conflict(UmecError):
    """The request contradicts the present state."""

    code = "conflict"
    kind = Kind.CONFLICT


class Unavailable(UmecError):
    """Something that the answer needs is not there right now."""

    code = "unavailable"
    kind = Kind.UNAVAILABLE
