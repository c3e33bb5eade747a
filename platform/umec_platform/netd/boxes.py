"""Traffic rules as boxes in the space of flows, and the confinement of a rule to its tenant. Pure.

A box is one range in each of five fields: source, destination, protocol, source port, destination port. A rule becomes
one box for each combination of its filters' members. Boxes of one priority never overlap, and boxes of two tenants
never do: so what a rule does cannot depend on the order in which rules arrived, and no tenant takes another's packets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from ipaddress import IPv4Address, IPv4Network, ip_network
from itertools import product
from typing import Final

from umec_platform.netd.errors import AddressNotOfTenant, RuleOverlaps, RuleTooBroad
from umec_platform.netd.messages import Action, TrafficFilter, TrafficRule

__all__ = ["Box", "CompiledRule", "Confinement", "Direction", "compile_rule"]

MAX_BOXES: Final = 256
"""Boxes of one rule: a filter is a few prefixes and ports; more is another way of spelling 'everything'."""

LONGEST_CLAIM: Final = 24
"""A destination outside the tenant's subnet is a /24 or smaller: one tenant cannot claim the world for itself."""

FIRST_OPEN_PORT: Final = 1024
"""Ports of the host's own address below this one are never a tenant's."""

Range = tuple[int, int]
_PROTOCOLS: Final[dict[str, Range]] = {"tcp": (6, 6), "udp": (17, 17), "icmp": (1, 1), "any": (0, 255)}
_ALL_PORTS: Final = (0, 65535)
_ALL_ADDRESSES: Final = (0, 2**32 - 1)


@unique
class Direction(Enum):
    """Whether the flow begins outside the tenant's network (and is meant for it) or inside."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Box:
    """First and last value of each field, addresses as numbers."""

    direction: Direction
    src: Range
    dst: Range
    protocol: Range
    sport: Range
    dport: Range

    def overlaps(self, other: "Box") -> bool:
        """Whether some flow lies in both."""
        return (
            self.dst[0] <= other.dst[1]
            and other.dst[0] <= self.dst[1]
            and self.dport[0] <= other.dport[1]
            and other.dport[0] <= self.dport[1]
            and self.direction is other.direction
            and self.src[0] <= other.src[1]
            and other.src[0] <= self.src[1]
            and self.protocol[0] <= other.protocol[1]
            and other.protocol[0] <= self.protocol[1]
            and self.sport[0] <= other.sport[1]
            and other.sport[0] <= self.sport[1]
        )

    @property
    def exact(self) -> bool:
        """Whether one destination, protocol and port say it all, so that a hash finds it."""
        return (
            self.src == _ALL_ADDRESSES
            and self.sport == _ALL_PORTS
            and self.dst[0] == self.dst[1]
            and self.protocol[0] == self.protocol[1]
            and self.dport[0] == self.dport[1]
        )


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule that is confined to its tenant; only `compile_rule` makes one."""

    tenant: str
    id: str
    priority: int
    action: Action
    to: str | None
    instance: str
    boxes: tuple[Box, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and identifier."""
        return (self.tenant, self.id)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a tenant's rules may speak about.

    `subnet` is the tenant's own, `own` are the addresses of its instances, `pool` holds the subnets of all tenants,
    `host` are the host's own addresses, of which `reserved` ports are served by the host itself.
    """

    subnet: IPv4Network
    own: frozenset[str]
    pool: IPv4Network
    host: frozenset[IPv4Address]
    reserved: frozenset[int] = field(default=frozenset())


def compile_rule(rule: TrafficRule, confinement: Confinement) -> CompiledRule:
    """Return the boxes of a rule; raises `AddressNotOfTenant`, `RuleTooBroad` or `RuleOverlaps`.

    1. The target is an instance of the tenant. 2. Each filter is about destinations that no other tenant and no service
    of the host has; one that drops flows that begin in the tenant's subnet may be about all of them. 3. Its boxes do
    not overlap.
    """
    if rule.to is not None and rule.to not in confinement.own:  # 1
        raise AddressNotOfTenant(f"{rule.to} is not the address of an instance of tenant {rule.tenant}")
    found: dict[Box, None] = {}
    for one in rule.filters:
        for box in _boxes(one, rule.action, confinement):  # 2
            if rule.action in {"FORWARD", "DUPLICATE"} and box.direction is Direction.OUT:
                raise RuleTooBroad(f"{rule.action} is for flows that begin outside the tenant's network")
            found[box] = None
            if len(found) > MAX_BOXES:
                raise RuleTooBroad(f"the filters have more than {MAX_BOXES} combinations")
    boxes = tuple(found)
    for index, box in enumerate(boxes):  # 3
        if any(box.overlaps(other) for other in boxes[:index]):
            raise RuleOverlaps("the filters of the rule overlap each other")
    return CompiledRule(rule.tenant, rule.id, rule.priority, rule.action, rule.to, rule.instance, boxes)


def _boxes(one: TrafficFilter, action: Action, confinement: Confinement) -> Iterator[Box]:
    sources, destinations = _networks(one.src), _networks(one.dst)
    if sources and all(source.subnet_of(confinement.subnet) for source in sources):
        direction = Direction.OUT
    else:
        direction = Direction.IN
    if direction is Direction.IN or action != "DROP":
        _check_destinations(one, destinations, confinement)
    protocol = _PROTOCOLS[one.protocol]
    combinations = product(
        [_span(network) for network in sources] or [_ALL_ADDRESSES],
        [_span(network) for network in destinations] or [_ALL_ADDRESSES],
        [(first, last) for first, last in one.src_ports] or [_ALL_PORTS],
        [(first, last) for first, last in one.dst_ports] or [_ALL_PORTS],
    )
    for src, dst, sport, dport in combinations:
        yield Box(direction, src, dst, protocol, sport, dport)


def _check_destinations(one: TrafficFilter, destinations: Sequence[IPv4Network], confinement: Confinement) -> None:
    if not destinations:
        raise RuleTooBroad("a filter names its destinations, unless it drops what the tenant's own subnet sends")
    for network in destinations:
        if network.subnet_of(confinement.subnet):
            continue
        if network.overlaps(confinement.pool):
            raise AddressNotOfTenant(f"{network} holds addresses of other tenants")
        if network.prefixlen < LONGEST_CLAIM or network.is_multicast or network.is_loopback:
            raise RuleTooBroad(f"{network} is more than a tenant may claim")
        if any(address in network for address in confinement.host):
            _check_host_ports(one, network, confinement)


def _check_host_ports(one: TrafficFilter, network: IPv4Network, confinement: Confinement) -> None:
    ports = one.dst_ports
    if not ports or any(first < FIRST_OPEN_PORT for first, _ in ports):
        raise RuleTooBroad(f"of the host's own address in {network} a rule names ports from {FIRST_OPEN_PORT} on")
    if any(first <= port <= last for first, last in ports for port in confinement.reserved):
        raise RuleTooBroad(f"a port of {network} is served by the host itself")


def _networks(prefixes: Sequence[str]) -> list[IPv4Network]:
    networks = [ip_network(prefix) for prefix in prefixes]
    narrowed = [network for network in networks if isinstance(network, IPv4Network)]
    if len(narrowed) != len(networks):
        raise RuleTooBroad("the tenants' networks are IPv4: a rule cannot name an IPv6 prefix")
    return narrowed


def _span(network: IPv4Network) -> Range:
    return (int(network.network_address), int(network.broadcast_address))
