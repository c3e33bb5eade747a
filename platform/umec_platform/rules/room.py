"""How much of a host each tenant's rules may take, so that its whole desired state is always one request. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from umec_platform.netd.messages import MAX_LINE, MAX_RULES, DnsRule, TrafficRule

__all__ = ["MAX_RULE_OCTETS", "ROOM", "octets", "surplus"]

MAX_RULE_OCTETS: Final = 4096
"""Octets of one rule in netd's words: ten times a usual one."""

ROOM: Final = MAX_LINE - 2 * 1024 * 1024
"""Octets for the rules of one host: the rest is for its tenants and instances."""


def octets(rule: TrafficRule | DnsRule) -> int:
    """Return how much of a request a rule takes."""
    return len(rule.model_dump_json()) + 1


def surplus(rules: Sequence[TrafficRule | DnsRule], *, room: int = ROOM) -> frozenset[str]:
    """Return the names of the rules that find no room on their host: the last ones of the tenants that take most.

    A tenant whose rules take no more than an equal share of the room has all of them, whatever the others ask for.
    """
    # What a rule counts at least: so rules that fit by their octets fit by their number, too.
    least = room // MAX_RULES
    taken: defaultdict[str, int] = defaultdict(int)
    places: list[tuple[TrafficRule | DnsRule, int]] = []
    for rule in rules:
        taken[rule.tenant] += max(octets(rule), least)
        places.append((rule, taken[rule.tenant]))
    share = _share(taken.values(), room)
    return frozenset() if share is None else frozenset(rule.id for rule, end in places if end > share)


def _share(taken: Iterable[int], room: int) -> int | None:
    """Return the most that each tenant can have if those with less keep it, or None if all of it fits."""
    waiting = sorted(taken)
    for index, least in enumerate(waiting):
        share = room // (len(waiting) - index)
        if least > share:
            return share
        room -= least
    return None
