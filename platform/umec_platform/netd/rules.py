"""Traffic rules and names: taken while the lease holds, confined to their tenant, and gone with their instance."""

from collections.abc import Iterable
from typing import Any, Literal

from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_platform.netd import messages
from umec_platform.netd.boxes import CompiledRule, Confinement, compile_rule
from umec_platform.netd.errors import AddressNotOfTenant, StandingLapsed
from umec_platform.netd.force import Force
from umec_platform.netd.leases import Lease
from umec_platform.netd.rulebook import RuleBook
from umec_platform.netd.settings import NetdSettings
from umec_platform.netd.state import Instance, NameBook, Wanted, check_dns_address

__all__ = ["Rules"]


class Rules:
    """The operations on rules and names; those without a request are for whoever holds the lock of `force`."""

    def __init__(self, settings: NetdSettings, wanted: Wanted, lease: Lease, force: Force, clock: Clock) -> None:
        self._settings = settings
        self._wanted = wanted
        self._lease = lease
        self._force = force
        self._clock = clock

    async def put_traffic(self, request: messages.TrafficPut) -> dict[str, Any]:
        """Add or replace a traffic rule."""
        async with self._force.lock:
            self._lease.check_change(self._clock())
            rule = self._compile(request.rule)
            self._wanted.rules.check(rule)
            before = self._wanted.rules.get(*rule.key)
            await self._force.change_rules(add=[rule], delete=[] if before is None else [before])
            self._wanted.rules.put(rule)
        return {"tenant": rule.tenant, "rule": rule.id}

    async def delete_traffic(self, request: messages.TrafficDelete) -> dict[str, Any]:
        """Remove a traffic rule."""
        async with self._force.lock:
            return {"deleted": await self._drop_traffic(request.tenant, request.rule)}

    async def put_dns(self, request: messages.DnsPut) -> dict[str, Any]:
        """Add or replace a name."""
        rule = request.rule
        async with self._force.lock:
            self._lease.check_change(self._clock())
            self._check_dns(rule, self._wanted.names, self._wanted.rules)
            await self._force.put_name(rule, self._wanted.names.get(rule.tenant, rule.id))
            self._wanted.names.put(rule)
        return {"tenant": rule.tenant, "rule": rule.id}

    async def delete_dns(self, request: messages.DnsDelete) -> dict[str, Any]:
        """Remove a name."""
        async with self._force.lock:
            return {"deleted": await self._drop_dns(request.tenant, request.rule)}

    async def drop_traffic_of(self, instance: Instance) -> None:
        """Remove the traffic rules of an instance, and those that send packets to it."""
        for rule in self._wanted.rules:
            if str(instance.address) == rule.to or instance.name == rule.instance:
                await self._drop_traffic(rule.tenant, rule.id)

    async def drop_names_of(self, instance: Instance) -> None:
        """Remove the names of an instance, and those of its address."""
        for rule in self._wanted.names:
            if str(instance.address) == rule.address or instance.name == rule.instance:
                await self._drop_dns(rule.tenant, rule.id)

    def take_over(self, request: messages.Sync) -> list[messages.Refusal]:
        """Want the rules and names of a desired state, and return those that are refused.

        While the node is silent that is what was there, and nothing new.
        """
        before, rules, names, refused = self._wanted, RuleBook(), NameBook(), list[messages.Refusal]()
        entry = self._lease.entry
        silent = self._force.holds and entry is not None and entry.standing is Standing.LAPSED
        for rule in request.traffic:
            try:
                compiled = self._compile(rule)
                if silent and before.rules.get(*compiled.key) != compiled:
                    raise StandingLapsed("the node is silent: it gets no new rule")
                rules.check(compiled)
                rules.put(compiled)
            except UmecError as error:
                refused.append(_refusal("traffic", rule, error))
        for name in request.dns:
            try:
                self._check_dns(name, names, rules)
                if silent and before.names.get(name.tenant, name.id) != name:
                    raise StandingLapsed("the node is silent: it gets no new name")
                names.put(name)
            except UmecError as error:
                refused.append(_refusal("dns", name, error))
        self._wanted.rules, self._wanted.names = rules, names
        return refused

    def _compile(self, rule: messages.TrafficRule) -> CompiledRule:
        self._check_instance(rule.tenant, rule.instance)
        settings = self._settings
        return compile_rule(
            rule,
            Confinement(
                subnet=self._wanted.networks.get(rule.tenant).subnet,
                own=self._wanted.addresses_of(rule.tenant),
                pool=settings.pool,
                host=frozenset({settings.access_address.ip, *(address for address, _ in settings.services)}),
                reserved=frozenset(port for _, port in settings.services),
            ),
        )

    def _check_dns(self, rule: messages.DnsRule, names: NameBook, rules: Iterable[CompiledRule]) -> None:
        self._wanted.networks.get(rule.tenant)
        self._check_instance(rule.tenant, rule.instance)
        check_dns_address(rule, self._wanted.addresses_of(rule.tenant), rules)
        names.check(rule)

    def _check_instance(self, tenant: str, instance: str) -> None:
        known = self._wanted.instances.get(instance)
        if known is not None and known.network.tenant != tenant:
            raise AddressNotOfTenant(f"instance {instance} is not one of tenant {tenant}")

    async def _drop_traffic(self, tenant: str, rule: str) -> bool:
        known = self._wanted.rules.get(tenant, rule)
        if known is None:
            return False
        await self._force.change_rules(delete=[known])
        self._wanted.rules.discard(tenant, rule)
        return True

    async def _drop_dns(self, tenant: str, rule: str) -> bool:
        known = self._wanted.names.get(tenant, rule)
        if known is None:
            return False
        await self._force.remove_name(known)
        self._wanted.names.discard(tenant, rule)
        return True


def _refusal(
    kind: Literal["traffic", "dns"], rule: messages.TrafficRule | messages.DnsRule, error: UmecError
) -> messages.Refusal:
    return messages.Refusal(
        kind=kind, sort=error.kind.value, tenant=rule.tenant, id=rule.id, code=error.code, detail=error.detail
    )
