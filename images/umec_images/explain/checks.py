"""One check: what was expected, what was found, and what to do. It explains a decision, and makes none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any, TypeVar

from umec_core.errors import UmecError

__all__ = ["Check", "Status", "attempt", "not_judged"]

T = TypeVar("T")


@unique
class Status(StrEnum):
    """How a check ended."""

    HOLDS = "holds"
    REFUSED = "refused"
    PASSED_OVER = "passed-over"
    """Attached by somebody, proves nothing, and hinders nothing: whoever may push may attach."""
    NOT_JUDGED = "not-judged"
    """What it needs is missing."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of several."""

    name: str
    status: Status
    expected: str
    found: str
    code: str | None = None
    advice: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is to be known about it."""

    def to_json(self) -> dict[str, Any]:
        """Return the check as it is sent and printed."""
        return {
            "check": self.name,
            "status": self.status.value,
            "expected": self.expected,
            "found": self.found,
            "code": self.code,
            "advice": self.advice,
            **self.facts,
        }


def attempt(
    name: str, expected: str, work: Callable[[], T], found: Callable[[T], str], *, otherwise: Status = Status.REFUSED
) -> tuple[Check, T | None]:
    """Do `work`; return how it ended, with its result if it has one. A refusal of ours has the status `otherwise`."""
    try:
        result = work()
    except UmecError as refusal:
        return Check(name, otherwise, expected, refusal.detail, refusal.code, refusal.advice), None
    return Check(name, Status.HOLDS, expected, found(result)), result


def not_judged(name: str, expected: str, why: str) -> Check:
    """Return a check that could not be done."""
    return Check(name, Status.NOT_JUDGED, expected, why)
