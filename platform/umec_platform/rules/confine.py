"""What a tenant's rules may touch: its own addresses and names, and nothing else. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from umec_platform.errors import AddressForeign, NameForeign, RuleInvalid

__all__ = ["PLACEHOLDER", "Confines", "Network", "check_domain", "confines_before_start", "parse_network"]

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

PLACEHOLDER: Final = IPv4Address("192.0.0.8")
"""Stands for the address of an instance that has none yet (the IPv4 dummy address, RFC 7600)."""

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_MAX_NAME: Final = 253
"""Characters of a host name without its final dot (RFC 1035)."""


@dataclass(frozen=True, slots=True)
class Confines:
    """What one instance's rules may touch.

    `own` is its address, `siblings` the addresses of the tenant's instances on the same host (its own among them),
    `networks` what is granted to the tenant together with the tenant's subnet, `domains` the names granted to it.
    """

    tenant: str
    instance: str
    own: IPv4Address
    siblings: frozenset[Address]
    networks: tuple[Network, ...]
    domains: tuple[str, ...]

    def check_network(self, network: Network) -> None:
        """Raise `AddressForeign` unless the network lies in what the tenant holds."""
        for held in (*self.networks, ip_network(self.own)):
            if network.version == held.version and network.subnet_of(held):  # type: ignore[arg-type]
                return
        raise AddressForeign(
            f"{network} does not belong to tenant {self.tenant}",
            advice="The operator grants addresses when the tenant is made.",
        )

    def check_target(self, address: Address) -> None:
        """Raise `AddressForeign` unless the address is an instance of the tenant on this host."""
        if address not in self.siblings:
            raise AddressForeign(f"{address} is no application instance of tenant {self.tenant} on this host")

    def check_name(self, name: str) -> None:
        """Raise `NameForeign` unless the name is, or lies under, a name that the tenant holds."""
        if not any(name == domain or name.endswith(f".{domain}") for domain in self.domains):
            raise NameForeign(
                f"{name} lies under no name that tenant {self.tenant} holds ({', '.join(self.domains) or 'none'})",
                advice="The operator grants names when the tenant is made.",
            )


def confines_before_start(*, tenant: str, networks: Iterable[Network], domains: Iterable[str]) -> Confines:
    """Return the confines to judge a descriptor with, before any instance of it has an address."""
    return Confines(
        tenant=tenant,
        instance="not-started",
        own=PLACEHOLDER,
        siblings=frozenset({PLACEHOLDER}),
        networks=tuple(networks),
        domains=tuple(domains),
    )


def parse_network(text: str) -> Network:
    """Return the prefix or single address; raises `RuleInvalid` for anything else, host bits and zones included."""
    try:
        return ip_network(_no_zone(text), strict=True)
    except ValueError:
        raise RuleInvalid("an address or a prefix without host bits is expected") from None


def check_domain(text: str) -> str:
    """Return a host name in lower case without its final dot; raises `RuleInvalid` for what is no host name.

    RFC 1123, two labels or more, the last one no number; wildcards and underscores are no host names.
    """
    name = text.removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > _MAX_NAME or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise RuleInvalid("a host name of two labels or more is expected (RFC 1123)")
    if labels[-1].isdigit():
        raise RuleInvalid("the last label of a host name is no number")
    return name


def _no_zone(text: str) -> str:
    if "%" in text:
        raise ValueError("zones are of one host only")
    return text
