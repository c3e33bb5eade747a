"""What netd has been asked for: tenants, instances, rules, names. Pure; `force` brings it into force."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_network

from umec_platform.netd.boxes import CompiledRule, Direction
from umec_platform.netd.containers import Container
from umec_platform.netd.errors import AddressNotOfTenant, NameTaken, SubnetRefused, TenantUnknown
from umec_platform.netd.messages import DnsRule
from umec_platform.netd.network import BRIDGE_PREFIX, VETH_PREFIX
from umec_platform.netd.resolver import Record
from umec_platform.netd.rulebook import RuleBook

__all__ = ["Instance", "NameBook", "TenantNetwork", "TenantNetworks", "Wanted", "check_dns_address", "record_of"]

SUBNET_BITS = 24
"""A tenant's subnet: 253 instances are more than a street computer runs."""


@dataclass(frozen=True, slots=True)
class TenantNetwork:
    """The bridge and the subnet of one tenant."""

    tenant: str
    index: int
    subnet: IPv4Network

    @property
    def bridge(self) -> str:
        """Name of the bridge, made of a number."""
        return f"{BRIDGE_PREFIX}{self.index}"

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's own address."""
        return IPv4Interface(f"{self.subnet.network_address + 1}/{self.subnet.prefixlen}")

    def veth(self, address: IPv4Address) -> str:
        """Name of the host's end of an instance's interface."""
        return f"{VETH_PREFIX}{self.index}-{int(address) - int(self.subnet.network_address)}"


@dataclass(slots=True)
class Instance:
    """One instance that was started."""

    name: str
    network: TenantNetwork
    address: IPv4Address
    container: Container

    @property
    def live(self) -> tuple[str, str]:
        """Bridge and address, as the kernel's set of live instances has it."""
        return (self.network.bridge, str(self.address))


class TenantNetworks:
    """The subnets of a pool, one for each tenant."""

    def __init__(self, pool: IPv4Network) -> None:
        if pool.prefixlen > SUBNET_BITS or pool.prefixlen < SUBNET_BITS - 12:
            raise SubnetRefused(f"the pool {pool} does not hold 1 to 4096 subnets of /{SUBNET_BITS}")
        self._pool = pool
        self._tenants: dict[str, TenantNetwork] = {}

    def __iter__(self) -> Iterator[TenantNetwork]:
        return iter(list(self._tenants.values()))

    def get(self, tenant: str) -> TenantNetwork:
        """Return a tenant's network; raises `TenantUnknown`."""
        found = self._tenants.get(tenant)
        if found is None:
            raise TenantUnknown(f"tenant {tenant} has no network here", advice="put the tenant first")
        return found

    def plan(self, tenant: str, subnet: str | None) -> tuple[TenantNetwork, bool]:
        """Return the network that a tenant has or would get, and whether it is new; raises `SubnetRefused`."""
        known = self._tenants.get(tenant)
        if known is not None:
            if subnet is not None and subnet != str(known.subnet):
                raise SubnetRefused(f"tenant {tenant} has the subnet {known.subnet}")
            return known, False
        taken = {network.subnet for network in self._tenants.values()}
        wanted = self._free(taken) if subnet is None else self._checked(subnet, taken)
        index = (int(wanted.network_address) - int(self._pool.network_address)) >> (32 - SUBNET_BITS)
        return TenantNetwork(tenant, index, wanted), True

    def add(self, network: TenantNetwork) -> None:
        """Keep a planned network that was made."""
        self._tenants[network.tenant] = network

    def discard(self, tenant: str) -> None:
        """Forget a network that was removed."""
        self._tenants.pop(tenant, None)

    def _free(self, taken: set[IPv4Network]) -> IPv4Network:
        for candidate in self._pool.subnets(new_prefix=SUBNET_BITS):
            if candidate not in taken:
                return candidate
        raise SubnetRefused(f"the pool {self._pool} has no subnet left")

    def _checked(self, subnet: str, taken: set[IPv4Network]) -> IPv4Network:
        wanted = ip_network(subnet)
        if not isinstance(wanted, IPv4Network) or wanted.prefixlen != SUBNET_BITS or not wanted.subnet_of(self._pool):
            raise SubnetRefused(f"{subnet} is not a /{SUBNET_BITS} of {self._pool}")
        if wanted in taken:
            raise SubnetRefused(f"{subnet} is another tenant's")
        return wanted


class NameBook:
    """The wanted DNS rules by tenant and identifier, and by name."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], DnsRule] = {}
        self._names: dict[tuple[str, str], DnsRule] = {}

    def __iter__(self) -> Iterator[DnsRule]:
        return iter(list(self._rules.values()))

    def __len__(self) -> int:
        return len(self._rules)

    def get(self, tenant: str, rule: str) -> DnsRule | None:
        """Return a rule, if it is there."""
        return self._rules.get((tenant, rule))

    def check(self, rule: DnsRule) -> None:
        """Raise `NameTaken` if another rule has this name and kind, or another tenant has this name at all."""
        for kind in ("A", "AAAA"):
            other = self._names.get((rule.name, kind))
            if other is None or (other.tenant, other.id) == (rule.tenant, rule.id):
                continue
            if other.tenant != rule.tenant or kind == rule.kind:
                raise NameTaken(f"another rule answers for {rule.name}")

    def put(self, rule: DnsRule) -> None:
        """Add or replace a rule that was checked."""
        self.discard(rule.tenant, rule.id)
        self._rules[rule.tenant, rule.id] = rule
        self._names[rule.name, rule.kind] = rule

    def discard(self, tenant: str, rule: str) -> DnsRule | None:
        """Remove a rule and return it, if it was there."""
        found = self._rules.pop((tenant, rule), None)
        if found is not None:
            del self._names[found.name, found.kind]
        return found

    def records(self) -> list[Record]:
        """Return what the resolver is to serve."""
        return [record_of(rule) for rule in self._rules.values()]


@dataclass(slots=True)
class Wanted:
    """All that netd was asked for; the books of rules and names are replaced as a whole by `sync`."""

    networks: TenantNetworks
    rules: RuleBook
    names: NameBook
    instances: dict[str, Instance]

    def addresses_of(self, tenant: str) -> frozenset[str]:
        """Return the addresses of a tenant's instances."""
        return frozenset(str(one.address) for one in self.instances.values() if one.network.tenant == tenant)


def record_of(rule: DnsRule) -> Record:
    """Return the record of a rule."""
    return Record(rule.name, rule.kind, rule.address, rule.ttl)


def check_dns_address(rule: DnsRule, own: Iterable[str], rules: Iterable[CompiledRule]) -> None:
    """Raise `AddressNotOfTenant` unless a name points at the tenant's instance or at a destination of its own rules."""
    if rule.address in own:
        return
    if rule.kind == "A":
        number = int(IPv4Address(rule.address))
        for other in rules:
            if other.tenant != rule.tenant or other.action != "FORWARD":
                continue
            if any(box.direction is Direction.IN and box.dst[0] <= number <= box.dst[1] for box in other.boxes):
                return
    raise AddressNotOfTenant(
        f"{rule.address} is neither an instance of tenant {rule.tenant} nor a destination of its rules"
    )
