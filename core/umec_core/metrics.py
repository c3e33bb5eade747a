"""Counters of a serving process, shown at /metrics (needs the extra `server`)."""

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

__all__ = ["AUDITED", "CHECKS", "REQUESTS", "SECONDS", "render"]

REQUESTS: Final = Counter("umec_http_requests_total", "Answered requests", ["app", "method", "route", "status"])
SECONDS: Final = Histogram(
    "umec_http_request_seconds",
    "Time to answer",
    ["app", "route"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CHECKS: Final = Counter("umec_token_checks_total", "Access tokens that were checked", ["app", "outcome"])
AUDITED: Final = Counter("umec_audit_entries_total", "Entries written to an audit log", ["action", "outcome"])


def render() -> tuple[bytes, str]:
    """Return the text of /metrics and its media type."""
    return generate_latest(), CONTENT_TYPE_LATEST
