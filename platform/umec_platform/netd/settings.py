"""What does not change while netd runs."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from umec_core.jose import KeySet
from umec_platform.netd.leases import LeaseTerms

__all__ = ["NetdSettings"]


@dataclass(frozen=True, slots=True)
class NetdSettings:
    """Where, for whom and on whose word netd serves.

    `access` are the interfaces towards the users, the first of which has `access_address`, where names are answered.
    Each tenant gets a /24 of `pool`. `services` are the TCP services that every instance may call. `agent` is the state
    folder of the node's agent, which measures every start (None: nobody does).
    """

    state: Path
    terms: LeaseTerms
    decision_keys: KeySet
    decision_issuer: str
    access: tuple[str, ...]
    access_address: IPv4Interface
    pool: IPv4Network
    services: tuple[tuple[IPv4Address, int], ...] = ()
    agent: Path | None = None
