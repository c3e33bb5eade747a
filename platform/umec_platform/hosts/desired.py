"""What a host should hold right now, read from the rows and put into netd's words."""

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.errors import UmecError
from umec_platform.effects import RuleKey
from umec_platform.errors import HostFallen, RuleNoRoom
from umec_platform.hosts.confines import NOT_YET, all_confines, confines_of
from umec_platform.netd.messages import DnsRule as NetdDnsRule
from umec_platform.netd.messages import Tenant
from umec_platform.netd.messages import TrafficRule as NetdTrafficRule
from umec_platform.rules.confine import Confines
from umec_platform.rules.room import surplus
from umec_platform.rules.schemas import DnsRule, TrafficRule
from umec_platform.rules.translate import to_netd_dns, to_netd_traffic
from umec_platform.standing import consequence
from umec_platform.tables.hosts import HostRow, NetworkRow
from umec_platform.tables.instances import InstanceRow
from umec_platform.tables.rules import RuleRow

__all__ = ["Desired", "desired_rule", "desired_state"]


@dataclass(slots=True)
class Desired:
    """The whole desired state of a host. `refused` are active rules that it should not hold, and why."""

    tenants: list[Tenant] = field(default_factory=list)
    traffic: list[NetdTrafficRule] = field(default_factory=list)
    dns: list[NetdDnsRule] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)
    keys: dict[str, RuleKey] = field(default_factory=dict)
    """From netd's name of a rule to ours."""
    versions: dict[RuleKey, int] = field(default_factory=dict)
    """The versions of all rows that this was read from, of inactive rules too."""
    refused: dict[RuleKey, UmecError] = field(default_factory=dict)

    def leave_out(self) -> None:
        """Refuse what finds no room: a state that is larger than netd reads would leave the host with none."""
        over = surplus([*self.traffic, *self.dns])
        self.traffic = [rule for rule in self.traffic if rule.id not in over]
        self.dns = [name for name in self.dns if name.id not in over]
        for one in over:
            self.refused[self.keys[one]] = RuleNoRoom("the rules of the tenant take more of the host than its share")


async def desired_state(session: AsyncSession, host: str) -> Desired:
    """Return the whole desired state of a host. On a fallen node that is networks and instances, and no rule."""
    state = Desired()
    row = await session.get(HostRow, host)
    if row is None:
        return state
    networks = list(await session.scalars(select(NetworkRow).where(NetworkRow.host == host)))
    state.tenants = [Tenant(tenant=network.tenant, subnet=network.subnet) for network in networks]
    instances = list(await session.scalars(select(InstanceRow).where(InstanceRow.host == host)))
    # One that is down, and that nobody works on, should not run: a start may have failed on a host that was silent.
    # Those that are down count too: the host keeps their logs, and stops nothing that starts again.
    state.instances = [one.id for one in instances]
    stands = consequence(row.standing).rules
    confines = await all_confines(session, networks, instances) if stands else {}
    rules = select(RuleRow).where(RuleRow.host == host).order_by(RuleRow.instance, RuleRow.rule)
    for rule in await session.scalars(rules):
        key = RuleKey(rule.instance, rule.kind, rule.rule)
        state.versions[key] = rule.version
        if not rule.active:
            continue
        if rule.instance in confines:
            _add(state, rule, key, confines[rule.instance])
        else:
            state.refused[key] = HostFallen(NOT_YET)
    state.leave_out()
    return state


async def desired_rule(session: AsyncSession, key: RuleKey) -> NetdTrafficRule | NetdDnsRule | None:
    """Return one rule in netd's words, or None if the host should not hold it; raises as the translation does."""
    rule = await session.get(RuleRow, (key.instance, key.kind, key.rule))
    if rule is None or not rule.active:
        return None
    host = await session.get(HostRow, rule.host)
    if host is None or not consequence(host.standing).rules:
        return None
    instance = await session.get(InstanceRow, key.instance)
    if instance is None or instance.address is None:
        return None
    return _translate(rule, await confines_of(session, instance))


def _add(state: Desired, row: RuleRow, key: RuleKey, confines: Confines) -> None:
    try:
        rule = _translate(row, confines)
    except UmecError as error:
        state.refused[key] = error
        return
    state.keys[rule.id] = key
    if isinstance(rule, NetdTrafficRule):
        state.traffic.append(rule)
    else:
        state.dns.append(rule)


def _translate(row: RuleRow, confines: Confines) -> NetdTrafficRule | NetdDnsRule:
    if row.kind == "traffic":
        return to_netd_traffic(TrafficRule.model_validate(row.document), confines)
    return to_netd_dns(DnsRule.model_validate(row.document), confines)
