"""Attacks from outside, each with only what an attacker of that kind has: refused, each for its own reason.

What an attack is, and how one is carried out, is in `table`; `stranger` is somebody with TPMs of their own; every other
module is a kind of attack, and its table.
"""

from typing import Any, Final

from umec_platform.demo.attacks import (
    audit,
    credentials,
    enrolment,
    evidence,
    fallen,
    feed,
    images,
    inside,
    node_credentials,
    patience,
    rules,
)
from umec_platform.demo.attacks.table import Attack

__all__ = ["KINDS", "listed"]

KINDS: Final[dict[str, tuple[Attack[Any], ...]]] = {
    "evidence": evidence.ATTACKS,
    "enrolment": enrolment.ATTACKS,
    "node-credentials": node_credentials.ATTACKS,
    "credentials": credentials.ATTACKS,
    "images": images.ATTACKS,
    "rules": rules.ATTACKS,
    "inside": inside.ATTACKS,
    "feed": feed.ATTACKS,
    "time": (*patience.ATTACKS, *patience.LATE),
    "fall": fallen.ATTACKS,
    "audit": audit.ATTACKS,
}
"""All of them, in the order of the story."""


def listed() -> list[dict[str, Any]]:
    """Return a line for each attack: {attack, kind, expected, has}."""
    return [attack.line(kind) for kind, attacks in KINDS.items() for attack in attacks]
