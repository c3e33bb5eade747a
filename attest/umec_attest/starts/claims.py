"""What a decision says of a start, whoever signed it: compared alike by who measures starts and by who judges them."""

from collections.abc import Mapping, Sequence
from typing import Any

from umec_attest.starts.entry import StartEntry

__all__ = ["differences", "shown"]


def differences(claims: Mapping[str, Any], entry: StartEntry) -> Sequence[str]:
    """Return what of a start's node, tenant, instance and image its decision has otherwise, as the decision has it."""
    said = {"node": entry.node, "tenant": entry.tenant, "instance": entry.instance, "digest": entry.image}
    return [f"{name} {shown(claims, name)}" for name, value in said.items() if claims.get(name) != value]


def shown(claims: Mapping[str, Any], name: str) -> str:
    """Return a claim as it may be told."""
    return repr(claims.get(name))[:100]
