"""The table `inet umec`, as data: what is always there, and the elements of a rule. Pure; `dataplane` applies it.

Every chain looks a flow up by its *original* addresses and ports, in both directions and for every packet, in maps: one
hash for rules of one destination, protocol and port, one set of intervals for the others, for each priority in use. So
the cost of a packet does not grow with the number of rules, and a rule that goes ends its live flows, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from umec_platform.netd.boxes import Box, CompiledRule, Direction
from umec_platform.netd.nft import Command

__all__ = [
    "DELETE_TABLES",
    "MapName",
    "Plan",
    "base",
    "bridge_elements",
    "chains",
    "create_map",
    "elements",
    "live_element",
]

TABLE: Final = {"family": "inet", "table": "umec"}
COPIES: Final = {"family": "ip", "table": "umec"}
"""Copies (`dup`) exist in the families ip and ip6 only: they have a table of their own."""

DELETE_TABLES: Final[list[Command]] = [
    command
    for family in ("inet", "ip")
    for command in (
        {"add": {"table": {"family": family, "name": "umec"}}},
        {"delete": {"table": {"family": family, "name": "umec"}}},
    )
]
"""Remove everything, whether it is there or not."""

DNS_PORT: Final = 53

Expression = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class MapName:
    """One map: for a priority, a direction, a shape of keys and what is found."""

    priority: int
    direction: str
    shape: str
    """`exact` or `wide`."""
    content: str
    """`verdict` (forward chain), `dnat` and `stop` (address translation), `copy`."""

    def __str__(self) -> str:
        return f"{self.direction}_{self.shape}_{self.content}_{self.priority}"

    @property
    def place(self) -> dict[str, str]:
        """Family and table."""
        return COPIES if self.content == "copy" else TABLE


@dataclass(frozen=True, slots=True)
class Plan:
    """What does not change while netd runs."""

    pool: IPv4Network
    access: tuple[str, ...]
    """Names of the interfaces towards the users."""
    resolver: IPv4Address
    """Where Unbound listens."""
    services: tuple[tuple[IPv4Address, int], ...]
    """TCP services of the platform that every instance may call (Mp1, token endpoint)."""


def _meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def _field(protocol: str, name: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": name}}


def _original(key: str) -> Expression:
    return {"ct": {"key": key, "dir": "original"}}


def _match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


_IN_BRIDGE: Final = _match(_meta("iifname"), "@bridges")
_OUT_BRIDGE: Final = _match(_meta("oifname"), "@bridges")
_SRC_NOT_LIVE: Final = _match({"concat": [_meta("iifname"), _field("ip", "saddr")]}, "@live", "!=")
_DST_NOT_LIVE: Final = _match({"concat": [_meta("oifname"), _field("ip", "daddr")]}, "@live", "!=")
_TO_USERS: Final = _match(_meta("oifname"), "@access")
_FROM_USERS: Final = _match(_meta("iifname"), "@access")
_IPV6: Final = _match(_meta("nfproto"), "ipv6")
_INVALID: Final = _match({"ct": {"key": "state"}}, ["invalid"], "in")
_ESTABLISHED: Final = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
_UNTRACKED: Final = _match({"ct": {"key": "state"}}, ["untracked"], "in")
_ORIGINAL: Final = _match({"ct": {"key": "direction"}}, "original")
_REPLY: Final = _match({"ct": {"key": "direction"}}, "reply")
_ACCEPT: Final[Expression] = {"accept": None}
_DROP: Final[Expression] = {"drop": None}


def _chain(
    name: str, hook: str | None = None, *, kind: str = "filter", prio: int = 0, policy: str = "accept"
) -> Command:
    chain: dict[str, Any] = {**TABLE, "name": name}
    if hook is not None:
        chain |= {"type": kind, "hook": hook, "prio": prio, "policy": policy}
    return {"add": {"chain": chain}}


def _rule(chain: str, *expressions: Expression, place: dict[str, str] = TABLE) -> Command:
    return {"add": {"rule": {**place, "chain": chain, "expr": list(expressions)}}}


def _subnet(network: IPv4Network) -> Expression:
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def base(plan: Plan) -> list[Command]:
    """Return the commands that make both tables without any rule or live instance: everything forwarded is dropped."""
    pool = _subnet(plan.pool)
    services = [{"concat": [str(address), port]} for address, port in plan.services]
    to_service = {"concat": [_original("ip daddr"), _field("tcp", "dport")]}
    from_service = {"concat": [_original("ip daddr"), _field("tcp", "sport")]}
    commands: list[Command] = [
        *DELETE_TABLES,
        {"add": {"table": {"family": "inet", "name": "umec"}}},
        {"add": {"table": {"family": "ip", "name": "umec"}}},
        {"add": {"set": {**TABLE, "name": "bridges", "type": "ifname"}}},
        {"add": {"set": {**TABLE, "name": "same", "type": ["ifname", "ifname"]}}},
        {"add": {"set": {**TABLE, "name": "access", "type": "ifname", "elem": list(plan.access)}}},
        {"add": {"set": {**TABLE, "name": "live", "type": ["ifname", "ipv4_addr"]}}},
        {"add": {"set": {**TABLE, "name": "services", "type": ["ipv4_addr", "inet_service"]}}},
        *([{"add": {"element": {**TABLE, "name": "services", "elem": services}}}] if services else []),
        *(_chain(f"{way}_{side}") for way in ("in", "out") for side in ("original", "reply")),
        _chain("translate"),
        {"add": {"chain": {**COPIES, "name": "copies", "type": "filter", "hook": "prerouting", "prio": -150,
                           "policy": "accept"}}},
        _chain("prerouting", "prerouting", kind="nat", prio=-100),
        _chain("postrouting", "postrouting", kind="nat", prio=100),
        _chain("forward", "forward", policy="drop"),
        _chain("input", "input"),
        _chain("output", "output"),
    ]  # fmt: skip
    # Names are asked of any of our bridges' addresses, and answered by the one resolver.
    for transport in ("udp", "tcp"):
        asked = [_IN_BRIDGE, _match(_field("ip", "daddr"), pool), _match(_field(transport, "dport"), DNS_PORT)]
        commands.append(_rule("prerouting", *asked, {"dnat": {"family": "ip", "addr": str(plan.resolver)}}))
    commands += [
        _rule("prerouting", _FROM_USERS, {"jump": {"target": "translate"}}),
        _rule(
            "postrouting",
            _match(_field("ip", "saddr"), pool),
            _TO_USERS,
            {"masquerade": None},
        ),
        # The platform may run elsewhere and knows the way to this host, not to the instances on it.
        _rule(
            "postrouting", _match(_field("ip", "saddr"), pool), _match(to_service, "@services"), {"masquerade": None}
        ),
        # Forward: nothing between tenants, nothing of instances that do not stand, no foreign or forged source.
        _rule("forward", _IPV6, _DROP),
        _rule("forward", _INVALID, _DROP),
        _rule("forward", _IN_BRIDGE, _SRC_NOT_LIVE, _DROP),
        _rule("forward", _OUT_BRIDGE, _DST_NOT_LIVE, _DROP),
        # Where the kernel shows bridged packets here (br_netfilter), those within one bridge are its tenant's own.
        _rule("forward", _match({"concat": [_meta("iifname"), _meta("oifname")]}, "@same"), _ACCEPT),
        _rule("forward", _IN_BRIDGE, _OUT_BRIDGE, _DROP),
        _rule("forward", _FROM_USERS, _match(_field("ip", "saddr"), pool), _DROP),
        _rule("forward", _ORIGINAL, _IN_BRIDGE, _match(to_service, "@services"), _ACCEPT),
        _rule("forward", _REPLY, _OUT_BRIDGE, _match(from_service, "@services"), _ACCEPT),
        _rule(
            "forward",
            _match({"ct": {"key": "state"}}, ["related"], "in"),
            _match(_meta("l4proto"), "icmp"),
            _ACCEPT,
        ),
    ]
    for way, op in (("out", "=="), ("in", "!=")):
        for side, of in (("original", _ORIGINAL), ("reply", _REPLY)):
            jump = {"jump": {"target": f"{way}_{side}"}}
            # No rule opens the way to what lies beside the users' networks: the uplink, the site, its management.
            where = [] if way == "in" else [_TO_USERS if side == "original" else _FROM_USERS]
            commands.append(_rule("forward", of, *where, _match(_original("ip saddr"), pool, op), jump))
    # What an instance may reach on its host: names, the platform's services, answers to what the host began.
    commands += [
        _rule("input", _IN_BRIDGE, _IPV6, _DROP),
        _rule("input", _IN_BRIDGE, _SRC_NOT_LIVE, _DROP),
        _rule("input", _IN_BRIDGE, _ESTABLISHED, _ACCEPT),
        _rule("input", _IN_BRIDGE, _match(_field("udp", "dport"), DNS_PORT), _ACCEPT),
        _rule("input", _IN_BRIDGE, _match(_field("tcp", "dport"), DNS_PORT), _ACCEPT),
        _rule("input", _IN_BRIDGE, _match(to_service, "@services"), _ACCEPT),
        _rule("input", _IN_BRIDGE, _match(_meta("l4proto"), "icmp"), _ACCEPT),
        _rule("input", _IN_BRIDGE, _DROP),
        _rule("output", _UNTRACKED, _ACCEPT),
        _rule("output", _IPV6, _OUT_BRIDGE, _DROP),
        _rule("output", _OUT_BRIDGE, _DST_NOT_LIVE, _DROP),
    ]
    return commands


def create_map(name: MapName) -> Command:
    """Return the command that makes one empty map."""
    kind = ["ipv4_addr", "inet_proto", "inet_service"]
    if name.shape == "wide":
        kind = ["ipv4_addr", "ipv4_addr", "inet_proto", "inet_service", "inet_service"]
    value = "ipv4_addr" if name.content in {"dnat", "copy"} else "verdict"
    flags = {"flags": ["interval"]} if name.shape == "wide" else {}
    return {"add": {"map": {**name.place, "name": str(name), "type": kind, "map": value, **flags}}}


def _key(shape: str, *, reply: bool) -> Expression:
    """The flow in its original direction, read off a packet of either direction (no port is ever translated)."""
    sport, dport = (
        (_field("th", "dport"), _field("th", "sport")) if reply else (_field("th", "sport"), _field("th", "dport"))
    )
    destination, protocol = _original("ip daddr"), _meta("l4proto")
    if shape == "exact":
        return {"concat": [destination, protocol, dport]}
    return {"concat": [_original("ip saddr"), destination, protocol, sport, dport]}


def chains(maps: Iterable[MapName]) -> list[Command]:
    """Return the commands that make all lookups anew, highest priority (0) first."""
    names = ["in_original", "in_reply", "out_original", "out_reply", "translate"]
    commands: list[Command] = [{"flush": {"chain": {**TABLE, "name": name}}} for name in names]
    commands.append({"flush": {"chain": {**COPIES, "name": "copies"}}})
    for name in sorted(maps):
        key, data = _key(name.shape, reply=False), f"@{name}"
        if name.content == "verdict":
            commands.append(_rule(f"{name.direction}_original", {"vmap": {"key": key, "data": data}}))
            reply = {"vmap": {"key": _key(name.shape, reply=True), "data": data}}
            commands.append(_rule(f"{name.direction}_reply", reply))
        elif name.content == "stop":
            commands.append(_rule("translate", {"vmap": {"key": key, "data": data}}))
        elif name.content == "dnat":
            commands.append(_rule("translate", {"dnat": {"family": "ip", "addr": {"map": {"key": key, "data": data}}}}))
        else:
            copy = {"dup": {"addr": {"map": {"key": key, "data": data}}}}
            commands.append(_rule("copies", _ORIGINAL, copy, place=COPIES))
    return commands


def _address(number: int) -> str:
    return str(IPv4Address(number))


def _element(box: Box) -> Expression:
    if box.exact:
        return {"concat": [_address(box.dst[0]), box.protocol[0], box.dport[0]]}
    fields: list[tuple[int | str, int | str]] = [
        (_address(first), _address(last)) for first, last in (box.src, box.dst)
    ]
    fields += [box.protocol, box.sport, box.dport]
    return {"concat": [first if first == last else {"range": [first, last]} for first, last in fields]}


def elements(rules: Sequence[CompiledRule]) -> dict[MapName, list[Any]]:
    """Return, for every map, the elements of the rules: `[key, value]`."""
    found: dict[MapName, list[Any]] = {}
    for rule in rules:
        verdict = _DROP if rule.action == "DROP" else _ACCEPT
        for box in rule.boxes:
            values: dict[str, Any] = {"verdict": verdict}
            if box.direction is Direction.IN:
                values |= {"dnat": rule.to} if rule.action == "FORWARD" else {"stop": _ACCEPT}
            if rule.action == "DUPLICATE":
                values["copy"] = rule.to
            shape, key = "exact" if box.exact else "wide", _element(box)
            for content, value in values.items():
                name = MapName(rule.priority, box.direction.value, shape, content)
                found.setdefault(name, []).append([key, value])
    return found


def bridge_elements(command: str, name: str) -> list[Command]:
    """Return the commands that `add` or `delete` one bridge."""
    return [
        {command: {"element": {**TABLE, "name": "bridges", "elem": [name]}}},
        {command: {"element": {**TABLE, "name": "same", "elem": [{"concat": [name, name]}]}}},
    ]


def live_element(bridge: str, address: str) -> Expression:
    """Return the element of the set `live` for one instance."""
    return {"concat": [bridge, address]}
