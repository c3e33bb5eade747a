"""The operations of netd: what was asked for is kept, and is in force only while the node's lease holds."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.jose import KeySet
from umec_core.standing import Standing
from umec_platform.netd import messages, network
from umec_platform.netd.boxes import CompiledRule, Confinement, compile_rule
from umec_platform.netd.containers import Containers
from umec_platform.netd.dataplane import DataPlane
from umec_platform.netd.decisions import verify_decision
from umec_platform.netd.errors import AddressNotOfTenant, InstanceExists, InstanceStopped, StandingLapsed, SubnetRefused
from umec_platform.netd.host import look
from umec_platform.netd.leases import Lease, LeaseTerms
from umec_platform.netd.nft import Nftables
from umec_platform.netd.resolver import Resolver
from umec_platform.netd.rulebook import RuleBook
from umec_platform.netd.state import Instance, NameBook, TenantNetwork, TenantNetworks, check_dns_address, record_of
from umec_platform.netd.table import Plan

__all__ = ["NetdService", "NetdSettings", "open_service"]

LONGEST_NAP: Final = 5.0
"""Seconds between looks at the lease, however long it still holds: the clock may have been set."""

SHORTEST_NAP: Final = 0.05

RETRY_NAP: Final = 0.5
"""Seconds between attempts to bring into force, or to withdraw, what did not succeed as a whole."""

Result = dict[str, Any]
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NetdSettings:
    """What does not change while netd runs.

    `access` are the interfaces towards the users, the first of which has `access_address`, where names are answered.
    Each tenant gets a /24 of `pool`. `services` are the TCP services that every instance may call.
    """

    state: Path
    terms: LeaseTerms
    decision_keys: KeySet
    decision_issuer: str
    access: tuple[str, ...]
    access_address: IPv4Interface
    pool: IPv4Network
    services: tuple[tuple[IPv4Address, int], ...] = ()


class _Start:
    """A start under way: whoever stops it says so, and waits until it is over."""

    def __init__(self) -> None:
        self.stopped = False
        self.over: Final = asyncio.Event()

    def check(self) -> None:
        """Raise `InstanceStopped` if somebody has stopped it."""
        if self.stopped:
            raise InstanceStopped("the instance was stopped while it was being started")


class NetdService:
    """One method an operation, named as in `messages`; `open_service` makes it, and cleans up after it."""

    def __init__(self, settings: NetdSettings, clock: Clock, plane: DataPlane) -> None:
        self._settings = settings
        self._clock = clock
        self._plane = plane
        self._host = look()
        self._lease = Lease(settings.terms, settings.state / "standing.json")
        self._resolver = Resolver(settings.state / "unbound", settings.access_address.ip)
        self._containers = Containers(settings.state, self._host, settings.access_address.ip)
        self._forwarding = network.Forwarding()
        self._lock = asyncio.Lock()
        self._networks = TenantNetworks(settings.pool)
        self._rules = RuleBook()
        self._names = NameBook()
        self._instances: dict[str, Instance] = {}
        self._starting: dict[str, _Start] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = secrets.token_hex(8)
        self._in_force = False
        self._unsettled = False
        self._renewed = asyncio.Event()

    # --- life

    async def open(self) -> None:
        """Begin with nothing in force; raises if the host cannot do what is needed."""
        settings = self._settings
        if settings.access_address.ip in settings.pool:
            raise SubnetRefused(f"the access address {settings.access_address} lies in the pool {settings.pool}")
        await asyncio.to_thread(network.check_access, settings.access[0], settings.access_address)
        if not (self._host.mapped or self._host.cgroups):
            advice = "enter a network with `nsenter --net`: `ip netns exec` hides the control groups"
            _log.warning("no control groups here, so root cannot start containers", advice=advice)
        await self._containers.open()
        left = await asyncio.to_thread(network.sweep)
        if left:
            _log.warning("interfaces left behind were removed", names=left)
        await asyncio.to_thread(self._plane.install)
        self._forwarding.enable()
        await self._resolver.start()
        self._lease.recall()
        await self._settle()
        self._keep(asyncio.create_task(self._watch_lease()))

    async def close(self) -> None:
        """Leave nothing behind: each step is tried even if another fails."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._lock, contextlib.AsyncExitStack() as steps:
            steps.callback(self._forwarding.restore)
            steps.push_async_callback(asyncio.to_thread, self._plane.remove)
            steps.push_async_callback(asyncio.to_thread, network.sweep)
            steps.push_async_callback(self._containers.close)
            steps.push_async_callback(self._resolver.stop)
            for name in list(self._instances):
                steps.push_async_callback(self._stop, name)
            self._in_force = False

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch_lease(self) -> None:
        while True:
            ends = self._lease.ends
            remaining = LONGEST_NAP if ends is None else (ends - self._clock()).total_seconds()
            if ends is not None and remaining <= 0 and not self._in_force:
                remaining = LONGEST_NAP
            if self._unsettled:
                remaining = RETRY_NAP
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._renewed.wait(), min(max(remaining, SHORTEST_NAP), LONGEST_NAP))
            self._renewed.clear()
            try:
                async with self._lock:
                    await self._settle()
            except (UmecError, OSError) as error:
                _log.exception("the host is not as its lease says, it is tried again", reason=str(error))

    async def _settle(self) -> None:
        """Bring what is wanted into force, or withdraw it, as the lease says."""
        try:
            self._lease.check(self._clock())
        except UmecError as reason:
            if self._in_force or self._unsettled:
                _log.warning("node fell, everything is withdrawn", code=reason.code, detail=reason.detail)
                await self._withdraw()
            return
        if not self._in_force:
            await self._enforce()
            _log.info("node stands, everything is in force", rules=len(self._rules), names=len(self._names))

    async def _enforce(self) -> None:
        """Rules, names and links: in force is what holds as a whole, and what does not is tried again."""
        self._in_force, self._unsettled = False, True
        live = [one.live for one in self._instances.values() if one.container.running]
        await asyncio.to_thread(self._plane.replace, list(self._rules), live)
        await self._resolver.replace(self._names.records())
        await self._plug_all(plugged=True)
        self._in_force, self._unsettled = True, False

    async def _withdraw(self) -> None:
        """Rules first: they are one batch. The other effects are tried even if one fails."""
        self._in_force, self._unsettled = False, True
        async with contextlib.AsyncExitStack() as steps:
            steps.push_async_callback(self._plug_all, plugged=False)
            steps.push_async_callback(self._resolver.replace, [])
            await asyncio.to_thread(self._plane.replace, [], [])
        self._unsettled = False

    @contextlib.contextmanager
    def _or_all_anew(self) -> Iterator[None]:
        """If a change of names fails, what is wanted is brought into force as a whole, soon."""
        try:
            yield
        except BaseException:
            self._in_force, self._unsettled = False, True
            self._renewed.set()
            raise

    async def _plug_all(self, *, plugged: bool) -> None:
        for one in self._instances.values():
            if one.container.running:
                await asyncio.to_thread(network.set_plugged, one.network.veth(one.address), plugged=plugged)

    # --- operations

    async def status(self, _: messages.Status) -> Result:
        """Tell what is in force."""
        entry, ends = self._lease.entry, self._lease.ends
        return {
            "node": self._settings.terms.node,
            "began": self._began,
            "in_force": self._in_force,
            "standing": None if entry is None else entry.standing.value,
            "generation": None if entry is None else entry.generation,
            "lease_ends": None if ends is None else ends.isoformat().replace("+00:00", "Z"),
            "tenants": [_told(one) for one in self._networks],
            "instances": [
                {
                    "instance": one.name,
                    "tenant": one.network.tenant,
                    "address": str(one.address),
                    "pid": one.container.pid,
                    "running": one.container.running,
                }
                for one in self._instances.values()
            ],
            "traffic": len(self._rules),
            "dns": len(self._names),
            "resolver_pid": self._resolver.pid,
            "mapped_root": self._host.mapped,
            "limits": self._host.cgroups,
        }

    async def standing(self, request: messages.Standing) -> Result:
        """Renew or end the lease."""
        async with self._lock:
            self._lease.renew(request.statement, self._clock())
            await self._settle()
        self._renewed.set()
        return await self._standing_now()

    async def _standing_now(self) -> Result:
        told = await self.status(messages.Status(id="0"))
        return {name: told[name] for name in ("in_force", "standing", "generation", "lease_ends")}

    async def put_tenant(self, request: messages.TenantPut) -> Result:
        """Make a tenant's network."""
        async with self._lock:
            return _told(await self._put_tenant(request.tenant, request.subnet))

    async def _put_tenant(self, tenant: str, subnet: str | None) -> TenantNetwork:
        planned, new = self._networks.plan(tenant, subnet)
        if new:
            # Under control before it exists.
            await asyncio.to_thread(self._plane.add_bridge, planned.bridge)
            try:
                await asyncio.to_thread(network.add_bridge, planned.bridge, planned.gateway)
            except UmecError:
                await asyncio.to_thread(network.remove_link, planned.bridge)
                await asyncio.to_thread(self._plane.remove_bridge, planned.bridge)
                raise
            self._networks.add(planned)
        return planned

    async def _remove_tenant(self, one: TenantNetwork) -> None:
        for instance in [name for name, known in self._instances.items() if known.network.tenant == one.tenant]:
            await self._stop(instance)
        await asyncio.to_thread(network.remove_link, one.bridge)
        await asyncio.to_thread(self._plane.remove_bridge, one.bridge)
        self._networks.discard(one.tenant)

    async def put_traffic(self, request: messages.TrafficPut) -> Result:
        """Add or replace a traffic rule."""
        async with self._lock:
            self._lease.check_change(self._clock())
            rule = self._compile(request.rule)
            self._rules.check(rule)
            before = self._rules.get(*rule.key)
            if self._in_force:
                await asyncio.to_thread(self._plane.change, add=[rule], delete=[] if before is None else [before])
            self._rules.put(rule)
        return {"tenant": rule.tenant, "rule": rule.id}

    def _compile(self, rule: messages.TrafficRule) -> CompiledRule:
        self._check_instance(rule.tenant, rule.instance)
        settings = self._settings
        return compile_rule(
            rule,
            Confinement(
                subnet=self._networks.get(rule.tenant).subnet,
                own=self._own(rule.tenant),
                pool=settings.pool,
                host=frozenset({settings.access_address.ip, *(address for address, _ in settings.services)}),
                reserved=frozenset(port for _, port in settings.services),
            ),
        )

    def _check_instance(self, tenant: str, instance: str) -> None:
        known = self._instances.get(instance)
        if known is not None and known.network.tenant != tenant:
            raise AddressNotOfTenant(f"instance {instance} is not one of tenant {tenant}")

    def _own(self, tenant: str) -> frozenset[str]:
        return frozenset(str(one.address) for one in self._instances.values() if one.network.tenant == tenant)

    async def delete_traffic(self, request: messages.TrafficDelete) -> Result:
        """Remove a traffic rule."""
        async with self._lock:
            return {"deleted": await self._drop_traffic(request.tenant, request.rule)}

    async def _drop_traffic(self, tenant: str, rule: str) -> bool:
        known = self._rules.get(tenant, rule)
        if known is None:
            return False
        if self._in_force:
            await asyncio.to_thread(self._plane.change, delete=[known])
        self._rules.discard(tenant, rule)
        return True

    async def put_dns(self, request: messages.DnsPut) -> Result:
        """Add or replace a name."""
        rule = request.rule
        async with self._lock:
            self._lease.check_change(self._clock())
            self._check_dns(rule, self._names, self._rules)
            before = self._names.get(rule.tenant, rule.id)
            if self._in_force:
                with self._or_all_anew():
                    await self._resolver.put(record_of(rule))
                    if before is not None and (before.name, before.kind) != (rule.name, rule.kind):
                        await self._resolver.remove(before.name, before.kind)
            self._names.put(rule)
        return {"tenant": rule.tenant, "rule": rule.id}

    def _check_dns(self, rule: messages.DnsRule, names: NameBook, rules: Iterable[CompiledRule]) -> None:
        self._networks.get(rule.tenant)
        self._check_instance(rule.tenant, rule.instance)
        check_dns_address(rule, self._own(rule.tenant), rules)
        names.check(rule)

    async def delete_dns(self, request: messages.DnsDelete) -> Result:
        """Remove a name."""
        async with self._lock:
            return {"deleted": await self._drop_dns(request.tenant, request.rule)}

    async def _drop_dns(self, tenant: str, rule: str) -> bool:
        known = self._names.get(tenant, rule)
        if known is None:
            return False
        if self._in_force:
            with self._or_all_anew():
                await self._resolver.remove(known.name, known.kind)
        self._names.discard(tenant, rule)
        return True

    async def start_instance(self, request: messages.InstanceStart) -> Result:
        """Start an instance.

        1. The node stands, without reserve. 2. The decision is for exactly this. 3. The image is the decision's. 4. The
        node still stands when the container is there, and nobody has stopped the instance meanwhile; only then 5. it is
        connected, and 6. its program begins.
        """
        spec = request.spec
        self._lease.check_admission(self._clock())  # 1
        self._networks.get(spec.tenant)
        settings = self._settings
        admitted = verify_decision(  # 2
            spec,
            keys=settings.decision_keys,
            issuer=settings.decision_issuer,
            node=settings.terms.node,
            now=self._clock(),
        )
        with self._reserved(spec.instance) as start:
            bundle = await self._containers.prepare(spec, admitted)  # 3, without the lock: large images take a while
            async with self._lock:
                try:
                    self._lease.check_admission(self._clock())  # 4
                    start.check()
                    one = self._networks.get(spec.tenant)
                    container = await self._containers.create(bundle)
                except BaseException:
                    await self._containers.remove(spec.instance)
                    raise
                instance = Instance(spec.instance, one, self._free_address(one), container)
                self._instances[spec.instance] = instance
                try:
                    await self._connect(instance)  # 5
                    await self._containers.start(container)  # 6
                    container.follow(self._on_exit)
                except BaseException:
                    await self._stop(spec.instance)
                    raise
        return {"instance": spec.instance, "address": str(instance.address), "pid": container.pid}

    @contextlib.contextmanager
    def _reserved(self, instance: str) -> Iterator[_Start]:
        if instance in self._instances or instance in self._starting:
            raise InstanceExists(f"instance {instance} is here already")
        start = self._starting[instance] = _Start()
        try:
            yield start
        finally:
            del self._starting[instance]
            start.over.set()

    def _free_address(self, one: TenantNetwork) -> IPv4Address:
        taken = {known.address for known in self._instances.values()}
        for address in list(one.subnet.hosts())[1:]:
            if address not in taken:
                return address
        raise SubnetRefused(f"the subnet {one.subnet} has no address left")

    async def _connect(self, instance: Instance) -> None:
        one, veth = instance.network, instance.network.veth(instance.address)
        await asyncio.to_thread(
            network.plug,
            instance.container.pid,
            veth=veth,
            bridge=one.bridge,
            address=instance.address,
            subnet=one.subnet,
        )
        if self._in_force:
            await asyncio.to_thread(self._plane.admit, *instance.live)
            await asyncio.to_thread(network.set_plugged, veth, plugged=True)

    async def stop_instance(self, request: messages.InstanceStop) -> Result:
        """Stop an instance; a start of it that is under way comes to nothing, and is over when this returns."""
        start = self._starting.get(request.instance)
        if start is not None:
            start.stopped = True
            await start.over.wait()
        async with self._lock:
            return {"stopped": await self._stop(request.instance) or start is not None}

    async def instance_log(self, request: messages.InstanceLog) -> Result:
        """Return the end of what an instance wrote, whether it runs or not."""
        kept = await asyncio.to_thread(self._containers.logs.of, request.instance)
        return {"instance": request.instance, "text": await asyncio.to_thread(kept.tail, request.lines)}

    async def _stop(self, name: str) -> bool:
        """Cut off, withdraw its rules and names, kill, remove: each is tried even if another fails."""
        known = self._instances.pop(name, None)
        if known is None:
            return False
        async with contextlib.AsyncExitStack() as steps:
            steps.callback(known.container.release)
            steps.push_async_callback(self._containers.remove, name)
            steps.push_async_callback(asyncio.to_thread, network.remove_link, known.network.veth(known.address))
            steps.push_async_callback(self._drop_names_of, name, str(known.address))
            steps.push_async_callback(self._drop_rules_of, name, str(known.address))
            await asyncio.to_thread(self._plane.expel, *known.live)
        return True

    async def _drop_rules_of(self, instance: str, address: str) -> None:
        for rule in self._rules:
            if address == rule.to or instance == rule.instance:
                await self._drop_traffic(rule.tenant, rule.id)

    async def _drop_names_of(self, instance: str, address: str) -> None:
        for rule in self._names:
            if address == rule.address or instance == rule.instance:
                await self._drop_dns(rule.tenant, rule.id)

    def _on_exit(self, instance: str) -> None:
        self._keep(asyncio.create_task(self._expel(instance)))

    async def _expel(self, instance: str) -> None:
        async with self._lock:
            known = self._instances.get(instance)
            if known is not None and not known.container.running:
                _log.warning("instance ended", instance=instance, tenant=known.network.tenant)
                await asyncio.to_thread(self._plane.expel, *known.live)

    async def sync(self, request: messages.Sync) -> Result:
        """Set the whole desired state."""
        async with self._lock:
            wanted = {tenant.tenant for tenant in request.tenants}
            for one in self._networks:
                if one.tenant not in wanted:
                    await self._remove_tenant(one)
            for tenant in request.tenants:
                await self._put_tenant(tenant.tenant, tenant.subnet)
            if request.instances is not None:
                for name in set(self._instances) - set(request.instances):
                    await self._stop(name)
                for name in set(self._starting) - set(request.instances):
                    self._starting[name].stopped = True
                kept = {*request.instances, *self._starting}
                await asyncio.to_thread(self._containers.logs.keep, kept)
            rules, names, refused = self._take_over(request)
            self._rules, self._names = rules, names
            if self._in_force:
                await self._enforce()
            await self._settle()
        return {
            "traffic": len(rules),
            "dns": len(names),
            "refused": [one.model_dump() for one in refused],
            "in_force": self._in_force,
        }

    def _take_over(self, request: messages.Sync) -> tuple[RuleBook, NameBook, list[messages.Refusal]]:
        """Return the books of what is taken. While the node is silent that is what was there, and nothing new."""
        rules, names, refused = RuleBook(), NameBook(), list[messages.Refusal]()
        entry = self._lease.entry
        silent = self._in_force and entry is not None and entry.standing is Standing.LAPSED
        for rule in request.traffic:
            try:
                compiled = self._compile(rule)
                if silent and self._rules.get(*compiled.key) != compiled:
                    raise StandingLapsed("the node is silent: it gets no new rule")
                rules.check(compiled)
                rules.put(compiled)
            except UmecError as error:
                refused.append(_refusal("traffic", rule, error))
        for name in request.dns:
            try:
                self._check_dns(name, names, rules)
                if silent and self._names.get(name.tenant, name.id) != name:
                    raise StandingLapsed("the node is silent: it gets no new name")
                names.put(name)
            except UmecError as error:
                refused.append(_refusal("dns", name, error))
        return rules, names, refused


def _told(one: TenantNetwork) -> Result:
    return {"tenant": one.tenant, "subnet": str(one.subnet), "gateway": str(one.gateway.ip)}


def _refusal(
    kind: Literal["traffic", "dns"], rule: messages.TrafficRule | messages.DnsRule, error: UmecError
) -> messages.Refusal:
    return messages.Refusal(
        kind=kind, sort=error.kind.value, tenant=rule.tenant, id=rule.id, code=error.code, detail=error.detail
    )


@contextlib.asynccontextmanager
async def open_service(settings: NetdSettings, clock: Clock) -> AsyncIterator[NetdService]:
    """Open netd in the present network namespace, and leave nothing behind at the end."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    plan = Plan(settings.pool, settings.access, settings.access_address.ip, settings.services)
    with Nftables() as nft:
        service = NetdService(settings, clock, DataPlane(nft, plan))
        with network.namespace_lock():
            try:
                await service.open()
                yield service
            finally:
                await service.close()
