"""What the standing of a node means for what runs on it (the table of standings, one row each). Pure."""

from dataclasses import dataclass
from typing import Final

from umec_core.standing import Standing

__all__ = ["Consequence", "consequence"]


@dataclass(frozen=True, slots=True)
class Consequence:
    """What holds for a host while its node stands so.

    `suspended`: its services are announced as SUSPENDED. `withdrawn`: nobody discovers them. `rules`: its active rules
    are desired. `changes`: rules may become active and services be registered. `admits`: new instances may start.
    """

    suspended: bool
    withdrawn: bool
    rules: bool
    changes: bool
    admits: bool


_UNKNOWN: Final = Consequence(suspended=True, withdrawn=True, rules=False, changes=False, admits=False)
_TABLE: Final = {
    Standing.TRUSTED: Consequence(suspended=False, withdrawn=False, rules=True, changes=True, admits=True),
    Standing.DEGRADED: Consequence(suspended=False, withdrawn=False, rules=True, changes=True, admits=False),
    # The rules of a silent node end with its lease (`netd.leases`): one that was only cut off keeps serving until then.
    Standing.LAPSED: Consequence(suspended=True, withdrawn=False, rules=True, changes=False, admits=False),
    Standing.UNTRUSTED: Consequence(suspended=True, withdrawn=False, rules=False, changes=False, admits=False),
    Standing.QUARANTINED: _UNKNOWN,
    Standing.REVOKED: _UNKNOWN,
    Standing.PENDING: _UNKNOWN,
}


def consequence(standing: str | None) -> Consequence:
    """Return what a standing means; one that is not known, or not yet, means that nothing is served."""
    try:
        return _TABLE[Standing(standing)] if standing is not None else _UNKNOWN
    except ValueError:
        return _UNKNOWN
