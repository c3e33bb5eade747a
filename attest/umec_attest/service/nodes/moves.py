"""What an operator's decision makes of a node's standing. Pure: a dry run asks the same.

| decision   | pending     | trusted, degraded, lapsed | untrusted                | quarantined              | revoked |
|------------|-------------|---------------------------|--------------------------|--------------------------|---------|
| quarantine | quarantined | quarantined               | quarantined              | quarantined              | refused |
| revoke     | revoked     | revoked                   | revoked                  | revoked                  | refused |
| readmit    | refused     | refused                   | refused, or pending (*)  | pending, untrusted (**)  | refused |

(*) where the settings let an operator bring it back without a new boot; (**) if it was found untrusted before that.
"""

from collections.abc import Callable
from dataclasses import dataclass

from umec_attest.service.errors import NodeRevoked, ReadmitNeedsBoot, StandingConflict
from umec_attest.service.tables import NodeRow
from umec_core.standing import Standing

__all__ = ["Move", "Plan", "away", "back"]


@dataclass(frozen=True, slots=True)
class Move:
    """The standing after a decision, what is said of it where nobody says why, and whether a fall is forgotten."""

    standing: Standing
    reason: str
    forgive: bool = False


Plan = Callable[[NodeRow], Move]
"""Says what becomes of a node, or raises why nothing does."""


def away(standing: Standing) -> Plan:
    """Return the plan that takes a node out: QUARANTINED or REVOKED. It raises `NodeRevoked`."""

    def plan(node: NodeRow) -> Move:
        if node.standing == Standing.REVOKED.value:
            raise NodeRevoked(f"node {node.id} is revoked already")
        return Move(standing, f"{standing.value} by an operator")

    return plan


def back(*, untrusted: bool) -> Plan:
    """Return the plan that lets a node be judged again; `untrusted`: one that was found so, too, without a boot.

    It raises `StandingConflict`, `ReadmitNeedsBoot`.
    """

    def plan(node: NodeRow) -> Move:
        if node.standing not in {Standing.QUARANTINED.value, Standing.UNTRUSTED.value}:
            raise StandingConflict(f"node {node.id} is {node.standing}: there is nothing to readmit")
        if node.fell_at_reset is None or untrusted:
            return Move(Standing.PENDING, "readmitted", forgive=True)
        if node.standing == Standing.UNTRUSTED.value:
            raise ReadmitNeedsBoot(f"node {node.id} was found untrusted", advice="boot it into the expected image")
        return Move(Standing.UNTRUSTED, "readmitted")

    return plan
