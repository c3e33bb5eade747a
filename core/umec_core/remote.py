"""What another server of the platform answers instead of what was asked for; nothing of any HTTP client.

RemoteUnavailable   remote-unavailable   a server cannot be reached, or does not answer in time
RemoteRefused       the code of the server, or http-STATUS where it gave none
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from umec_core.errors import Kind, UmecError, Unavailable
from umec_core.problems import PROBLEMS

__all__ = ["RemoteRefused", "RemoteUnavailable", "refusal"]

MAX_RETRY_AFTER: Final = 24 * 3600
"""Seconds; whoever asks for more patience than a day is not to be heard."""


class RemoteUnavailable(Unavailable):
    """A server cannot be reached, or does not answer in time."""

    code = "remote-unavailable"


class RemoteRefused(UmecError):
    """A server refused; `code`, `detail` and `advice` are the server's, as is after how many seconds to try again."""

    def __init__(
        self, code: str, detail: str, *, status: int, advice: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail, advice=advice)
        self.status = status
        self.retry_after = retry_after
        self.code = code  # type: ignore[misc]  # the code of another process, known only now
        self.kind = _kinds.get(status, Kind.REFUSED)  # type: ignore[misc]


_kinds: Final = {problem.status: kind for kind, problem in PROBLEMS.items()}


def refusal(status: int, content: bytes, retry_after: str | None = None) -> RemoteRefused:
    """Return what a server says in an answer that is not 2xx: problem+json, RFC 6749, or nothing that can be read.

    `retry_after` is the header of that name (RFC 9110, 10.2.3); only its form in seconds is understood.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = {}
    said: Mapping[str, Any] = body if isinstance(body, dict) else {}
    return RemoteRefused(
        str(said.get("code") or said.get("error") or f"http-{status}"),
        str(said.get("detail") or said.get("error_description") or f"the server answered {status}"),
        status=status,
        advice=said["advice"] if isinstance(said.get("advice"), str) else None,
        retry_after=_seconds(retry_after),
    )


def _seconds(header: str | None) -> float | None:
    if header is None or not header.isascii() or not header.isdigit():
        return None
    return float(min(int(header[:9]), MAX_RETRY_AFTER))
