"""Whether the site decided a start: its own signed word, for this node, tenant, instance and image, at that time.

1. The site's admission signed it. 2. It is for this node, 3. for this tenant, instance and image. 4. Its time was then:
by the node's clock, and by what the verifier knows itself, which is between which two of its challenges the start was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from umec_attest.bootlog.findings import Finding
from umec_attest.starts.claims import differences, shown
from umec_attest.starts.entry import StartEntry
from umec_core.jose import JwtInvalid, KeySet, claim_text, claim_time, verify_jwt

__all__ = ["DECISION_TYPE", "NO_DECISIONS", "DecisionRules", "decision_finding"]

DECISION_TYPE: Final = "umec-admission+jwt"
SLACK: Final = timedelta(minutes=1)
"""How far clocks of site and node may be apart: a node whose clock is off by more starts nothing, for decisions are
short."""


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """Whose decisions count: the keys of the site's admission (None: nobody's), and its issuer."""

    keys: KeySet | None
    issuer: str


NO_DECISIONS: Final = DecisionRules(None, "")


def decision_finding(
    entry: StartEntry, *, node: str, rules: DecisionRules, since: datetime | None, now: datetime
) -> Finding | None:
    """Return what is wrong with a start on `node` that took place between `since` (None: unknown) and `now`, or None.

    Whatever it is, it names the image.
    """
    if rules.keys is None:
        return _finding("start-undecided", entry, "and this verifier has no keys of who decides")
    try:
        claims = verify_jwt(entry.decision, rules.keys, typ=DECISION_TYPE)  # 1
        issuer, times = claim_text(claims, "iss"), (claim_time(claims, "iat"), claim_time(claims, "exp"))
    except JwtInvalid as error:
        return _finding("start-undecided", entry, f"and the decision is not the site's: {error.detail}")
    if issuer != rules.issuer:
        return _finding("start-undecided", entry, "and the decision is of another issuer")
    return _difference_finding(claims, entry, node) or _time_finding(entry, times, since, now)


def _difference_finding(claims: Mapping[str, Any], entry: StartEntry, node: str) -> Finding | None:
    """2, 3. The node may say anything of what it started."""
    if entry.node != node or claims.get("node") != node:
        return _finding("start-of-another-node", entry, f"for node {shown(claims, 'node')}, and this is {node}")
    other = differences(claims, entry)
    if other:
        return _finding("start-not-as-decided", entry, f"and the decision was about {', '.join(other)}")
    return None


def _time_finding(
    entry: StartEntry, times: tuple[float, float], since: datetime | None, now: datetime
) -> Finding | None:
    """4. What the clock of the node said is the node's to say; when it was asked, and when it answered, is not."""
    (issued, expires), slack = times, SLACK.total_seconds()
    by_node = issued - slack <= entry.time < expires
    by_rounds = issued < now.timestamp() + slack and (since is None or since.timestamp() - slack < expires)
    if by_node and by_rounds:
        return None
    return _finding("start-decision-expired", entry, "and the decision was not valid then")


def _finding(identifier: str, entry: StartEntry, why: str) -> Finding:
    what = f"{entry.image} was started as {entry.instance} of tenant {entry.tenant} (start {entry.number})"
    return Finding(identifier, f"{what}, {why}", None, entry.image)
