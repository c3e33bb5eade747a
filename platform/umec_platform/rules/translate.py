"""From the rules of MEC 011 to what netd enforces: pure, confined to the tenant, and never a pretence.

1. Placeholders: the unspecified address means the instance's own one.
2. Filters: addresses, prefixes and ranges become prefixes; ports become ranges; each protocol a filter of its own.
   Members that this data plane cannot match (tunnels, QCI, DSCP, traffic class, tags) are refused.
3. Action and target: an IP interface that is an instance of the tenant.
4. Confinement: every filter has all its destinations in what the tenant holds; for one that drops packets it is enough
   that all its sources are.
"""

import hashlib
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range
from typing import Final, Literal, TypeVar

from pydantic import ValidationError

from umec_platform.errors import AddressForeign, RuleInvalid, RuleTooLarge, RuleUnsupported
from umec_platform.mec import faults
from umec_platform.netd import messages
from umec_platform.rules.confine import Confines, Network, check_domain, parse_network
from umec_platform.rules.room import MAX_RULE_OCTETS, octets
from umec_platform.rules.schemas import (
    Action,
    DestinationInterface,
    DnsRule,
    DnsRuleDescriptor,
    FilterType,
    InterfaceType,
    IpAddressType,
    TrafficFilter,
    TrafficRule,
    TrafficRuleDescriptor,
)

__all__ = ["MAX_TTL", "rule_id", "settle_dns_rule", "settle_traffic_rule", "to_netd_dns", "to_netd_traffic"]

MAX_TTL: Final = 60
"""Seconds that an answer may live in a cache: a name must stop pointing at a fallen node within a minute."""

_PREFIXES: Final = 16
"""Prefixes or port ranges of one filter, and filters of one rule, that netd takes."""

Protocol = Literal["tcp", "udp", "icmp", "any"]
_PROTOCOLS: Final[dict[str, Protocol]] = {
    "tcp": "tcp",
    "6": "tcp",
    "udp": "udp",
    "17": "udp",
    "icmp": "icmp",
    "1": "icmp",
    "any": "any",
}
_UNSUPPORTED: Final = (
    "tag",
    "src_tunnel_address",
    "tgt_tunnel_address",
    "src_tunnel_port",
    "dst_tunnel_port",
    "qci",
    "dscp",
    "tc",
)
_ACTIONS: Final[dict[Action, messages.Action]] = {
    Action.DROP: "DROP",
    Action.PASSTHROUGH: "PASSTHROUGH",
    Action.FORWARD_DECAPSULATED: "FORWARD",
    Action.FORWARD_ENCAPSULATED: "FORWARD",
    Action.DUPLICATE_DECAPSULATED: "DUPLICATE",
    Action.DUPLICATE_ENCAPSULATED: "DUPLICATE",
}
"""No packet on an IP network is encapsulated, so both spellings forward it as it is."""

T = TypeVar("T", bound=TrafficRuleDescriptor)
D = TypeVar("D", bound=DnsRuleDescriptor)


def rule_id(instance: str, kind: Literal["traffic", "dns"], identifier: str) -> str:
    """Return the name of a rule in netd: providers choose ids as they like, and instances of one AppD share them."""
    digest = hashlib.sha256(f"{instance}\n{kind}\n{identifier}".encode()).hexdigest()
    return f"{kind}-{digest[:40]}"


def settle_traffic_rule(rule: T, own: IPv4Address) -> T:
    """Return the rule with the instance's own address in place of the unspecified one (step 1)."""
    filters = [
        item.model_copy(
            update={
                "src_address": _settle_texts(item.src_address, own),
                "dst_address": _settle_texts(item.dst_address, own),
            }
        )
        for item in rule.traffic_filter
    ]
    interfaces = rule.dst_interface
    if interfaces and rule.action is not Action.PASSTHROUGH:
        interfaces = [_settle_interface(interfaces[0], own), *interfaces[1:]]
    return rule.model_copy(update={"traffic_filter": filters, "dst_interface": interfaces})


def settle_dns_rule(rule: D, own: IPv4Address) -> D:
    """Return the rule with the instance's own address in place of the unspecified one (step 1)."""
    if not rule.ip_address.is_unspecified:
        return rule
    if rule.ip_address_type is IpAddressType.IP_V6:
        raise RuleUnsupported("the instance has no IPv6 address of its own")
    return rule.model_copy(update={"ip_address": own})


def to_netd_traffic(rule: TrafficRule | TrafficRuleDescriptor, confines: Confines) -> messages.TrafficRule:
    """Return what netd enforces for a traffic rule.

    Raises `RuleInvalid` (malformed), `RuleUnsupported` (not enforceable here), `AddressForeign` (not the tenant's) or
    `RuleTooLarge`.
    """
    settled = settle_traffic_rule(rule, confines.own)  # 1
    filters = [made for item in settled.traffic_filter for made in _filters(item)]  # 2
    if len(filters) > _PREFIXES:
        raise RuleUnsupported(f"the rule needs {len(filters)} filters; at most {_PREFIXES} are enforced")
    target = _target(settled, confines)  # 3
    for item in filters:  # 4
        _confined(item, confines, drops=settled.action is Action.DROP)
    try:
        made = messages.TrafficRule(
            id=rule_id(confines.instance, "traffic", settled.traffic_rule_id),
            tenant=confines.tenant,
            instance=confines.instance,
            priority=settled.priority,
            filters=filters,
            action=_ACTIONS[settled.action],
            to=None if target is None else str(target),
        )
    except ValidationError as error:
        raise RuleInvalid(faults(error)) from None
    if octets(made) > MAX_RULE_OCTETS:
        raise RuleTooLarge(
            f"the rule takes {octets(made)} octets, at most {MAX_RULE_OCTETS} are enforced",
            advice="Name prefixes and ranges instead of single addresses and ports.",
        )
    return made


def to_netd_dns(rule: DnsRule | DnsRuleDescriptor, confines: Confines) -> messages.DnsRule:
    """Return what netd serves for a DNS rule; raises as `to_netd_traffic`, and `NameForeign`."""
    settled = settle_dns_rule(rule, confines.own)
    name = check_domain(settled.domain_name)
    confines.check_name(name)
    confines.check_network(parse_network(str(settled.ip_address)))
    try:
        return messages.DnsRule(
            id=rule_id(confines.instance, "dns", settled.dns_rule_id),
            tenant=confines.tenant,
            instance=confines.instance,
            name=name,
            kind="A" if settled.ip_address_type is IpAddressType.IP_V4 else "AAAA",
            address=str(settled.ip_address),
            ttl=MAX_TTL if settled.ttl is None else min(settled.ttl, MAX_TTL),
        )
    except ValidationError as error:
        raise RuleInvalid(faults(error)) from None


def _settle_texts(texts: list[str] | None, own: IPv4Address) -> list[str] | None:
    return None if texts is None else [str(own) if text == "0.0.0.0" else text for text in texts]  # noqa: S104


def _settle_interface(interface: DestinationInterface, own: IPv4Address) -> DestinationInterface:
    address = interface.dst_ip_address
    if interface.interface_type is not InterfaceType.IP or (address is not None and not address.is_unspecified):
        return interface
    return interface.model_copy(update={"dst_ip_address": own})


def _filters(item: TrafficFilter) -> list[messages.TrafficFilter]:
    for member in _UNSUPPORTED:
        if getattr(item, member) is not None:
            raise RuleUnsupported(f"this data plane cannot match the filter member {member}")
    src, dst = _networks(item.src_address), _networks(item.dst_address)
    if src and dst and {network.version for network in src} != {network.version for network in dst}:
        raise RuleUnsupported("a filter has sources and destinations of different address families")
    src_ports, dst_ports = _ports(item.src_port), _ports(item.dst_port)
    protocols = _protocols(item.protocol, ports=bool(src_ports or dst_ports))
    try:
        return [
            messages.TrafficFilter(
                src=[str(network) for network in src],
                dst=[str(network) for network in dst],
                src_ports=[[first, last] for first, last in src_ports],
                dst_ports=[[first, last] for first, last in dst_ports],
                protocol=protocol,
            )
            for protocol in protocols
        ]
    except ValidationError as error:
        raise RuleInvalid(faults(error)) from None


def _networks(texts: list[str] | None) -> list[Network]:
    networks = [network for text in texts or [] for network in _range(text)]
    if len(networks) > _PREFIXES:
        raise RuleUnsupported(f"the addresses of a filter make {len(networks)} prefixes; at most {_PREFIXES} fit")
    return networks


def _range(text: str) -> list[Network]:
    """Return the prefixes of `ADDRESS`, `PREFIX/LENGTH`, `ADDRESS/MASK` or `FIRST-LAST`."""
    first, dash, last = text.partition("-")
    if not dash:
        return [parse_network(text)]
    try:
        low: IPv4Address | IPv6Address = ip_address(first.strip())
        high: IPv4Address | IPv6Address = ip_address(last.strip())
        return list(summarize_address_range(low, high))
    except (ValueError, TypeError):
        raise RuleInvalid("a range of addresses is FIRST-LAST, of one family and in order") from None


def _ports(texts: list[str] | None) -> list[tuple[int, int]]:
    ranges = [_port_range(text) for text in texts or []]
    if len(ranges) > _PREFIXES:
        raise RuleUnsupported(f"a filter has {len(ranges)} port ranges; at most {_PREFIXES} fit")
    return ranges


def _port_range(text: str) -> tuple[int, int]:
    """Return first and last port; whether they are ports, in order and of tcp or udp, netd's own type judges."""
    first, dash, last = text.partition("-")
    return _port(first), _port(last if dash else first)


def _port(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5):
        raise RuleInvalid("a port is a number from 0 to 65535")
    return int(digits)


def _protocols(texts: list[str] | None, *, ports: bool) -> list[Protocol]:
    if texts is None:
        return ["tcp", "udp"] if ports else ["any"]
    found: dict[Protocol, None] = {}
    for text in texts:
        protocol = _PROTOCOLS.get(text.strip().lower())
        if protocol is None:
            raise RuleUnsupported("this data plane matches the protocols tcp, udp, icmp and any")
        found[protocol] = None
    return list(found)


def _target(rule: TrafficRuleDescriptor, confines: Confines) -> IPv4Address | IPv6Address | None:
    if rule.action in {Action.DROP, Action.PASSTHROUGH}:
        if rule.dst_interface:
            raise RuleUnsupported("this data plane lets traffic pass only where it goes anyway: leave dstInterface out")
        return None
    target, *onward = rule.dst_interface or []
    if _ACTIONS[rule.action] == "FORWARD" and rule.filter_type is not FilterType.FLOW:
        raise RuleUnsupported("forwarding rewrites addresses of whole flows: filterType must be FLOW")
    if any(item.src_mac_address or item.dst_mac_address for item in (target, *onward)):
        raise RuleUnsupported("this data plane forwards packets, not frames: leave MAC addresses out")
    if any(
        item.interface_type is not InterfaceType.IP or item.tunnel_info or item.dst_ip_address is not None
        for item in onward
    ):
        raise RuleUnsupported(
            "the original of a duplicate goes its way: the second dstInterface is IP, without address"
        )
    if target.interface_type is not InterfaceType.IP or target.tunnel_info:
        raise RuleUnsupported("this data plane forwards to IP interfaces only")
    address = target.dst_ip_address or confines.own
    confines.check_target(address)
    return address


def _confined(item: messages.TrafficFilter, confines: Confines, *, drops: bool) -> None:
    last: AddressForeign | None = None
    for side in (item.dst, item.src) if drops else (item.dst,):
        try:
            for text in side:
                confines.check_network(parse_network(text))
        except AddressForeign as error:
            last = error
            continue
        if side:
            return
    raise last or AddressForeign("a filter matches every destination", advice="Name an address of the tenant.")
