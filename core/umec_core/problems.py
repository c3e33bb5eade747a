"""Problem details (RFC 9457): the one table from kinds of errors to HTTP."""

from dataclasses import dataclass
from typing import Any, Final

from umec_core.errors import Kind, UmecError

__all__ = ["MEDIA_TYPE", "PROBLEMS", "Problem", "problem_details"]

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """How a kind of error looks over HTTP."""

    status: int
    title: str


PROBLEMS: Final[dict[Kind, Problem]] = {
    Kind.INVALID: Problem(400, "The request is malformed"),
    Kind.UNAUTHENTICATED: Problem(401, "Authentication is required"),
    Kind.FORBIDDEN: Problem(403, "Not allowed"),
    Kind.REFUSED: Problem(422, "Refused"),
    Kind.NOT_FOUND: Problem(404, "Not found"),
    Kind.CONFLICT: Problem(409, "Conflict with the present state"),
    Kind.PRECONDITION: Problem(412, "Precondition failed"),
    Kind.TOO_LARGE: Problem(413, "Too large"),
    Kind.TIMEOUT: Problem(408, "The request took too long"),
    Kind.TOO_MANY: Problem(429, "Too many requests"),
    Kind.UNAVAILABLE: Problem(503, "Not available right now"),
}


def problem_details(error: UmecError) -> dict[str, Any]:
    """Return the body of RFC 9457 for an error: type, title, status, detail, and our `code` and `advice`."""
    problem = PROBLEMS[error.kind]
    body: dict[str, Any] = {
        "type": f"urn:umec:problem:{error.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.advice is not None:
        body["advice"] = error.advice
    return body
