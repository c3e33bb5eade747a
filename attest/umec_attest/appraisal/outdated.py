"""Evidence of a version of an image that does not count any more: told by its name, whatever the newest one finds."""

from datetime import datetime

from umec_attest.bootlog.findings import Finding
from umec_attest.quote import VerifiedQuote
from umec_attest.reference import Versions

__all__ = ["outdated_finding"]


def outdated_finding(versions: Versions, quote: VerifiedQuote, now: datetime) -> Finding | None:
    """Return the finding about a quote whose values are those of an older version, which newer ones have replaced."""
    ended = versions.ended(quote.pcrs, now)
    if ended is None:
        return None
    newest = versions.newest
    how = "was replaced at once" if ended.until is None else f"counted until {ended.until:%Y-%m-%dT%H:%M:%SZ}"
    detail = f"the node runs version {ended.reference.version} of {newest.name}, which {how}"
    return Finding("version-outdated", detail, f"version {newest.version}", f"version {ended.reference.version}")
