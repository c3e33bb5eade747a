"""From standing and verdict to standing: pure, one table.

| now                 | affirming           | warning             | contraindicated |
|---------------------|---------------------|---------------------|-----------------|
| pending, unapproved | pending             | pending             | pending         |
| pending, approved   | trusted             | degraded            | untrusted       |
| trusted, degraded   | trusted             | degraded            | untrusted       |
| lapsed              | trusted             | degraded            | untrusted       |
| untrusted           | trusted, new boot   | degraded, new boot  | untrusted       |
| quarantined         | quarantined         | quarantined         | quarantined     |

"New boot" is a resetCount above the one at which the node fell: what a running system did cannot be undone in it. It is
asked of a pending node, too, that fell and was enrolled anew.
A revoked node has no rounds at all.
An open box that was reset without an announcement gets no affirming verdict by the default policies, until an operator
has cleared it (`umec_attest.resets`).
"""

from typing import Final

from umec_attest.appraisal import Verdict
from umec_core.standing import Standing

__all__ = ["next_standing"]

_BY_VERDICT: Final = {
    Verdict.AFFIRMING: Standing.TRUSTED,
    Verdict.WARNING: Standing.DEGRADED,
    Verdict.CONTRAINDICATED: Standing.UNTRUSTED,
}


def next_standing(
    now: Standing, verdict: Verdict, *, approved: bool, reset_count: int, fell_at_reset: int | None
) -> Standing:
    """Return the standing after a round; `fell_at_reset` is None for a node that was not found untrusted."""
    if now in {Standing.QUARANTINED, Standing.REVOKED} or (now is Standing.PENDING and not approved):
        return now
    if verdict is not Verdict.CONTRAINDICATED and fell_at_reset is not None and reset_count <= fell_at_reset:
        return Standing.UNTRUSTED
    return _BY_VERDICT[verdict]
