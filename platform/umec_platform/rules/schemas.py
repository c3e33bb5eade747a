"""Traffic and DNS rules on the wire (MEC 011 clause 7.1), and as descriptors in an AppD (MEC 010-2 clause 6.2.1).

Editions differ, and all of them are met in the field; on input each spelling is taken, on output the newest is given:

- filter `token` (2.x) is `tag` (3.x);
- actions `FORWARD_AS_IS`, `DUPLICATE_AS_IS` (1.1.1) are `…_ENCAPSULATED`; the newest 010-2 file has the misprints
  `FORWARD, ENCAPSULATED` and `DUPLICATE, .ENCAPSULATED`;
- `dstInterface` is an object in 2.1.1 and 3.1.1 and an array in 2.2.1;
- descriptors say `dstIPAddress`, `srcMACAddress`; rules say `dstIpAddress`, `srcMacAddress`.
"""

from enum import Enum, unique
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Final, Self

from pydantic import AliasChoices, BeforeValidator, Field, IPvAnyAddress, model_validator

from umec_platform.mec import MAX_LIST, Identifier, MecModel, Text, one_or_many

__all__ = [
    "Action",
    "DestinationInterface",
    "DnsRule",
    "DnsRuleDescriptor",
    "FilterType",
    "InterfaceType",
    "IpAddressType",
    "RuleState",
    "TrafficFilter",
    "TrafficRule",
    "TrafficRuleDescriptor",
    "TunnelInfo",
]

_ACTION_ALIASES: Final = {
    "FORWARD_AS_IS": "FORWARD_ENCAPSULATED",
    "DUPLICATE_AS_IS": "DUPLICATE_ENCAPSULATED",
    "FORWARD, ENCAPSULATED": "FORWARD_ENCAPSULATED",
    "DUPLICATE, .ENCAPSULATED": "DUPLICATE_ENCAPSULATED",
}


def _text(value: object) -> object:
    """An address is a text: the library would take 7 for 0.0.0.7."""
    if not isinstance(value, str | IPv4Address | IPv6Address):
        raise ValueError("an address is a text")  # noqa: TRY004 - this is what the library turns into a fault
    return value


_Address = Annotated[IPvAnyAddress, BeforeValidator(_text)]
_MAX_TTL: Final = 2**31 - 1
"""RFC 2181 clause 8."""


@unique
class RuleState(Enum):
    """Whether a rule acts."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


@unique
class FilterType(Enum):
    """FLOW: a match and its replies; PACKET: each packet for itself."""

    FLOW = "FLOW"
    PACKET = "PACKET"


@unique
class Action(Enum):
    """What happens to a packet that matches."""

    DROP = "DROP"
    FORWARD_DECAPSULATED = "FORWARD_DECAPSULATED"
    FORWARD_ENCAPSULATED = "FORWARD_ENCAPSULATED"
    PASSTHROUGH = "PASSTHROUGH"
    DUPLICATE_DECAPSULATED = "DUPLICATE_DECAPSULATED"
    DUPLICATE_ENCAPSULATED = "DUPLICATE_ENCAPSULATED"


@unique
class InterfaceType(Enum):
    """What kind of interface a packet goes to."""

    TUNNEL = "TUNNEL"
    MAC = "MAC"
    IP = "IP"


@unique
class IpAddressType(Enum):
    """The family of an address."""

    IP_V4 = "IP_V4"
    IP_V6 = "IP_V6"


@unique
class TunnelType(Enum):
    """What kind of tunnel an interface is."""

    GTP_U = "GTP_U"
    GRE = "GRE"


def _action(value: object) -> object:
    return _ACTION_ALIASES.get(value, value) if isinstance(value, str) else value


_Texts = Annotated[list[Text] | None, Field(min_length=1, max_length=MAX_LIST)]
_Octet = Annotated[int | None, Field(ge=0, le=255)]


class TrafficFilter(MecModel):
    """Which packets: members are ANDed, values of a member are ORed."""

    src_address: _Texts = None
    dst_address: _Texts = None
    src_port: _Texts = None
    dst_port: _Texts = None
    protocol: _Texts = None
    tag: _Texts = Field(default=None, validation_alias=AliasChoices("tag", "token"))
    src_tunnel_address: _Texts = None
    tgt_tunnel_address: _Texts = None
    src_tunnel_port: _Texts = None
    dst_tunnel_port: _Texts = None
    qci: _Octet = Field(default=None, alias="qCI")
    dscp: _Octet = Field(default=None, alias="dSCP")
    tc: _Octet = Field(default=None, alias="tC")


class TunnelInfo(MecModel):
    """The tunnel behind an interface."""

    tunnel_type: TunnelType
    tunnel_dst_address: Text | None = None
    tunnel_src_address: Text | None = None


class DestinationInterface(MecModel):
    """Where matching packets go. The unspecified address, or none, means the application's own address."""

    interface_type: InterfaceType
    tunnel_info: TunnelInfo | None = None
    src_mac_address: Text | None = Field(
        default=None,
        validation_alias=AliasChoices("srcMacAddress", "srcMACAddress"),
        serialization_alias="srcMacAddress",
    )
    dst_mac_address: Text | None = Field(
        default=None,
        validation_alias=AliasChoices("dstMacAddress", "dstMACAddress"),
        serialization_alias="dstMacAddress",
    )
    dst_ip_address: _Address | None = Field(
        default=None,
        validation_alias=AliasChoices("dstIpAddress", "dstIPAddress"),
        serialization_alias="dstIpAddress",
    )


_INTERFACES: Final = {
    Action.DROP: 0,
    Action.FORWARD_DECAPSULATED: 1,
    Action.FORWARD_ENCAPSULATED: 1,
    Action.PASSTHROUGH: 1,
    Action.DUPLICATE_DECAPSULATED: 2,
    Action.DUPLICATE_ENCAPSULATED: 2,
}


class TrafficRuleDescriptor(MecModel):
    """A traffic rule as an AppD asks for it. Priority 0 is the highest."""

    traffic_rule_id: Identifier
    filter_type: FilterType
    priority: int = Field(ge=0, le=255)
    traffic_filter: list[TrafficFilter] = Field(min_length=1, max_length=MAX_LIST)
    action: Annotated[Action, BeforeValidator(_action)]
    dst_interface: Annotated[list[DestinationInterface] | None, BeforeValidator(one_or_many)] = Field(
        default=None, max_length=2
    )

    @model_validator(mode="after")
    def _interfaces(self) -> Self:
        needed, given = _INTERFACES[self.action], len(self.dst_interface or [])
        if given == needed or (self.action is Action.PASSTHROUGH and given == 0):
            return self
        raise ValueError(f"{self.action.value} needs {needed} dstInterface, not {given}")


class TrafficRule(TrafficRuleDescriptor):
    """A traffic rule of an instance."""

    state: RuleState


class DnsRuleDescriptor(MecModel):
    """A DNS rule as an AppD asks for it. The unspecified address means the application's own address."""

    dns_rule_id: Identifier
    domain_name: Text
    ip_address_type: IpAddressType
    ip_address: _Address
    ttl: int | None = Field(default=None, ge=0, le=_MAX_TTL)

    @model_validator(mode="after")
    def _family(self) -> Self:
        if (self.ip_address.version == 4) != (self.ip_address_type is IpAddressType.IP_V4):
            raise ValueError("ipAddress is not of ipAddressType")
        return self


class DnsRule(DnsRuleDescriptor):
    """A DNS rule of an instance. An inactive one is not in the DNS; without `ttl` it never expires."""

    state: RuleState
