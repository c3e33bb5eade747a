"""Runs the operations on instances. Each step may be done twice, so an operation that a crash cut off is run again.

Instantiate: 1. the node stands well now, by the verifier's own feed; 2. the image is admitted; 3. its files are here;
4. the tenant has its network on the host, and the host its lease; 5. the instance has a key of its own and is a client
of the authorization server with the scopes of its descriptor; 6. the platform signs its decision; 7. the host starts
the instance; 8. instance and rules (inactive until the application asks for them) are written down. If a step fails,
its client is taken back, however long that takes, and the operation says why; its host is brought to what it should
run like after any change.
Operate: an instance that should run and does not (`recovery`) is started again, by the same steps; if one fails, it
stays instantiated and down, and is tried again later.
Terminate: 1. its client goes, and its tokens with it; 2. its services, subscriptions and rules go; 3. the host stops
the instance. Each is tried until it succeeds: to end is no wish that can be refused.
Whatever has not come to an end, because a neighbour is silent or nothing can be written, is run again and again.
"""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.errors import UmecError
from umec_core.jose import private_jwk, public_jwk
from umec_core.standing import Standing, StandingView
from umec_platform.effects import Ledger
from umec_platform.errors import HostFallen, HostSilent, OperationFailed, StoppedMeanwhile
from umec_platform.hosts.fleet import Fleet
from umec_platform.instances.decision import Decision, sign_decision
from umec_platform.instances.ports import Admitted, Admitter, ClientRegistrar, NewClient, Puller
from umec_platform.instances.service import forget_instance
from umec_platform.netd.messages import InstanceSpec
from umec_platform.packages.appd import AppD
from umec_platform.rules.confine import Confines
from umec_platform.rules.schemas import DnsRule, TrafficRule
from umec_platform.rules.translate import settle_dns_rule, settle_traffic_rule, to_netd_dns, to_netd_traffic
from umec_platform.tables.hosts import HostRow, NetworkRow
from umec_platform.tables.instances import (
    COMPLETED,
    FAILED,
    INSTANTIATE,
    INSTANTIATED,
    NOT_INSTANTIATED,
    OPERATE,
    PROCESSING,
    STARTING,
    TERMINATE,
    InstanceRow,
    OperationRow,
)
from umec_platform.tables.packages import PackageRow
from umec_platform.tables.rules import RuleRow
from umec_platform.tables.tenants import TenantRow

__all__ = ["LifeCycle", "Site"]

log = structlog.get_logger("umec.lifecycle")

FEED_PATIENCE: Final = 10.0
FEED_LOOK: Final = 0.1
"""Seconds that operations of an earlier run wait for the first standing, and between two looks."""

RETRY_EVERY: Final = 5.0
"""Seconds between looks for operations that have not come to their end and that nobody runs."""

STARTS_AT_ONCE: Final = 4
"""A host that restarts brings all its instances back: a small node unpacks a few images at a time."""

CREDENTIAL: Final = "client.json"
"""The file under /run/umec from which an application learns who it is and where its platform answers."""


@dataclass(frozen=True, slots=True)
class Site:
    """What an application has to know of its site, and what signs decisions. URLs have no final slash."""

    issuer: str
    mp1: str
    ca: str
    decision_issuer: str
    decision_key: EllipticCurvePrivateKey

    @property
    def token_endpoint(self) -> str:
        """Where applications get their tokens."""
        return f"{self.issuer}/oauth2/token"


@dataclass(frozen=True, slots=True)
class _Job:
    """What an operation is about, as it was when it began."""

    operation: str
    kind: str
    began: datetime
    instance: InstanceRow
    package: PackageRow
    host: HostRow
    tenant: TenantRow
    failed: UmecError | None
    """Why it failed, if all that is left is to take back what it made."""

    @property
    def appd(self) -> AppD:
        return AppD.model_validate(self.package.appd)


class LifeCycle:
    """Runs operations, each in a task of its own."""

    def __init__(
        self,
        ledger: Ledger,
        fleet: Fleet,
        *,
        site: Site,
        view: StandingView,
        admitter: Admitter,
        puller: Puller,
        registrar: ClientRegistrar,
        new_key: Callable[[], EllipticCurvePrivateKey] = lambda: generate_private_key(SECP256R1()),
    ) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._site = site
        self._view = view
        self._admitter = admitter
        self._puller = puller
        self._registrar = registrar
        self._new_key = new_key
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)

    async def run(self) -> None:
        """Work until cancelled; operations that were cut off, or could not come to their end, are run again."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                first = True
                while True:
                    orders = await self._unfinished()
                    if first and orders:
                        await self._hear_of_nodes()
                    first = False
                    for order in orders:
                        self._begin(order)
                    await asyncio.sleep(RETRY_EVERY)
        finally:
            self._tasks = None
            self._running.clear()

    async def _unfinished(self) -> list[str]:
        """Return the operations without an end; none if the store does not answer at this moment."""
        try:
            async with self._ledger.store.read() as session:
                query = select(OperationRow.id).where(OperationRow.state.in_([STARTING, PROCESSING]))
                return list(await session.scalars(query))
        except Exception:
            log.exception("unfinished operations could not be read")
            return []

    async def _hear_of_nodes(self) -> None:
        """Wait until the standing feed has spoken, or would have: else operations would fail for a restart alone."""
        for _ in range(round(FEED_PATIENCE / FEED_LOOK)):
            if self._view.issued_at is not None:
                return
            await asyncio.sleep(FEED_LOOK)

    async def handle(self, payload: dict[str, Any]) -> None:
        """Take a row of the outbox (topic OPERATION): begin, and leave the rest to the operation's own state."""
        self._begin(payload["operation"])

    def _begin(self, operation: str) -> None:
        if self._tasks is not None and operation not in self._running:
            self._running[operation] = self._tasks.create_task(self._guard(operation), name=f"operation {operation}")

    async def _guard(self, operation: str) -> None:
        try:
            await self.perform(operation)
        except Exception:
            log.exception("an operation could not be written down", operation=operation)
        finally:
            self._running.pop(operation, None)

    async def perform(self, operation: str) -> None:
        """Run one operation to its end; what it comes to is in its row. One that has ended is left alone."""
        job = await self._ledger.write(lambda session: self._job(session, operation))
        if job is None:
            return
        if job.failed is not None:
            await self._fail(job, job.failed)
            return
        try:
            if job.kind == TERMINATE:
                await self._terminate(job)
            else:
                async with self._starts:
                    await self._start(job)
        except Exception as error:
            if not isinstance(error, UmecError):
                log.exception("an operation met an unforeseen error", operation=operation)
            if job.kind == TERMINATE:
                await self._wait(job, error)
            else:
                await self._fail(job, error)

    async def _job(self, session: AsyncSession, operation: str) -> _Job | None:
        order = await session.get(OperationRow, operation)
        if order is None or order.state not in {STARTING, PROCESSING}:
            return None
        if order.state == STARTING:
            order.state, order.entered_at = PROCESSING, self._ledger.clock()
        failed = None
        if order.code is not None and order.operation != TERMINATE:
            failed = OperationFailed(order.code, order.detail or "")
        instance = await session.get_one(InstanceRow, order.instance)
        return _Job(
            operation=order.id,
            kind=order.operation,
            began=order.entered_at,
            instance=instance,
            package=await session.get_one(PackageRow, instance.package),
            host=await session.get_one(HostRow, instance.host),
            tenant=await session.get_one(TenantRow, instance.tenant),
            failed=failed,
        )

    async def _start(self, job: _Job) -> None:
        if job.kind == OPERATE:
            await self._hear_of_nodes()
        appd, now = job.appd, self._ledger.clock()
        standing = self._view.current(job.host.node, now)  # 1
        if standing.standing is not Standing.TRUSTED:
            raise HostFallen(f"node {job.host.node} is {standing.standing.value}: it starts nothing new")
        admitted = await self._admitter.admit(  # 2
            tenant=job.tenant.id, repository=appd.image.repository, digest=appd.image.digest, now=now
        )
        blobs = await self._puller.pull(admitted.repository, admitted.digest)  # 3
        subnet = await self._place(job)  # 4
        key = self._new_key()
        await self._registrar.register(  # 5
            NewClient(
                client_id=job.instance.id,
                tenant=job.tenant.id,
                node=job.host.node,
                jwk=public_jwk(key),
                scopes=appd.requested_permissions,
            )
        )
        spec = self._spec(job, admitted, str(blobs), key)  # 6
        driver = await self._fleet.driver(job.host.id)
        await driver.stop_instance(job.instance.id)
        started = await driver.start_instance(spec)  # 7
        await self._ledger.write(  # 8
            lambda session: self._started(session, job, str(started["address"]), subnet, admitted)
        )

    async def _place(self, job: _Job) -> str:
        """Give the tenant its network on the host and the host its lease; returns the subnet.

        Nobody sets the host as a whole meanwhile, by rows in which neither network nor instance are yet.
        """
        driver = await self._fleet.driver(job.host.id)
        await self._fleet.relay(job.host.id)
        async with self._fleet.undisturbed(job.host.id):
            async with self._ledger.store.read() as session:
                known = await session.get(NetworkRow, (job.host.id, job.tenant.id))
            network = await driver.put_tenant(job.tenant.id, subnet=None if known is None else known.subnet)
            subnet = str(ip_network(network["subnet"]))
            if known is None:

                async def work(session: AsyncSession) -> None:
                    await session.merge(NetworkRow(host=job.host.id, tenant=job.tenant.id, subnet=subnet))

                await self._ledger.write(work)
        return subnet

    def _spec(self, job: _Job, admitted: Admitted, blobs: str, key: EllipticCurvePrivateKey) -> InstanceSpec:
        decision = Decision(
            issuer=self._site.decision_issuer,
            tenant=job.tenant.id,
            node=job.host.node,
            instance=job.instance.id,
            appd_sha256=str(job.package.appd_sha256),
            admitted=admitted,
        )
        credential = {
            "issuer": self._site.issuer,
            "client_id": job.instance.id,
            "private_jwk": private_jwk(key),
            "token_endpoint": self._site.token_endpoint,
            "mp1": self._site.mp1,
            "ca": self._site.ca,
        }
        return InstanceSpec(
            instance=job.instance.id,
            tenant=job.tenant.id,
            decision=sign_decision(decision, self._site.decision_key, self._ledger.clock()),
            repository=admitted.repository,
            digest=admitted.digest,
            blobs=blobs,
            secrets={CREDENTIAL: base64.b64encode(json.dumps(credential).encode()).decode()},
        )

    async def _started(self, session: AsyncSession, job: _Job, address: str, subnet: str, admitted: Admitted) -> None:
        now = self._ledger.clock()
        row = await session.get_one(InstanceRow, job.instance.id)
        if row.busy != job.operation:
            raise StoppedMeanwhile("the instance went away while it was started")
        await forget_instance(session, row.id, until=job.began)
        await session.flush()
        row.state, row.address, row.ready, row.busy = INSTANTIATED, address, False, None
        row.version += 1
        confines = await _confines(session, job, address, subnet)
        for rule in _rules(job, confines):
            session.add(rule)
        await self._end(session, job, COMPLETED, now)
        facts = {
            "tenant": job.tenant.id,
            "node": job.host.node,
            "address": address,
            "appd_sha256": job.package.appd_sha256,
            "digest": admitted.digest,
            "policy_sha256": admitted.policy_sha256,
            "policies": list(admitted.policies),
        }
        await self._ledger.record(
            session, actor="platform", action="instance.started", subject=row.id, facts=facts, now=now
        )

    async def _terminate(self, job: _Job) -> None:
        await self._registrar.remove(job.instance.id)  # 1

        async def forget(session: AsyncSession) -> None:
            now = self._ledger.clock()
            await forget_instance(session, job.instance.id)  # 2
            await self._ledger.look_at(session, job.host.id, now)

        await self._ledger.write(forget)
        driver = await self._fleet.driver(job.host.id)
        await driver.stop_instance(job.instance.id)  # 3

        async def work(session: AsyncSession) -> None:
            now = self._ledger.clock()
            await forget_instance(session, job.instance.id)  # what it registered with a request that was under way
            await self._free(session, job)
            await self._end(session, job, COMPLETED, now)
            await self._ledger.record(
                session, actor="platform", action="instance.stopped", subject=job.instance.id, now=now
            )
            await self._ledger.look_at(session, job.host.id, now)

        await self._ledger.write(work)

    async def _wait(self, job: _Job, error: Exception) -> None:
        """Write down what an operation waits for; it is run again until it comes to its end."""
        known = _known(error)
        log.warning("an operation is tried again", operation=job.operation, kind=job.kind, code=known.code)

        async def work(session: AsyncSession) -> None:
            order = await session.get_one(OperationRow, job.operation)
            order.code, order.detail = known.code, known.detail

        await self._ledger.write(work)

    async def _fail(self, job: _Job, error: Exception) -> None:
        """End a start that failed, but not before its client is gone; what its host runs, its worker corrects."""
        known = _known(error)
        try:
            driver = await self._fleet.driver(job.host.id)
            await driver.stop_instance(job.instance.id)
        except UmecError as fault:
            log.warning("a failed start could not be stopped at once", instance=job.instance.id, code=fault.code)
        try:
            await self._registrar.remove(job.instance.id)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the client must not stay
            log.warning("the client of a failed start is still there", instance=job.instance.id, fault=str(fault))
            await self._wait(job, known)
            return

        async def work(session: AsyncSession) -> None:
            now = self._ledger.clock()
            row = await session.get_one(InstanceRow, job.instance.id)
            if job.kind == INSTANTIATE:
                await self._free(session, job)
            elif row.busy == job.operation:
                row.busy = None
                row.version += 1
            await self._end(session, job, FAILED, now, known)
            action = f"instance.{job.kind.lower()}"
            await self._ledger.record(
                session, actor="platform", action=action, subject=row.id, code=known.code, now=now
            )
            await self._ledger.look_at(session, job.host.id, now)

        await self._ledger.write(work)

    @staticmethod
    async def _free(session: AsyncSession, job: _Job) -> None:
        row = await session.get_one(InstanceRow, job.instance.id)
        row.state, row.host, row.address, row.ready, row.busy = NOT_INSTANTIATED, None, None, False, None
        row.version += 1

    @staticmethod
    async def _end(session: AsyncSession, job: _Job, state: str, now: datetime, error: UmecError | None = None) -> None:
        order = await session.get_one(OperationRow, job.operation)
        order.state, order.entered_at = state, now
        order.code = None if error is None else error.code
        order.detail = None if error is None else error.detail


def _known(error: Exception) -> UmecError:
    return error if isinstance(error, UmecError) else HostSilent(f"an unforeseen {type(error).__name__}")


async def _confines(session: AsyncSession, job: _Job, address: str, subnet: str) -> Confines:
    own = IPv4Address(address)
    siblings = await session.scalars(
        select(InstanceRow.address).where(
            InstanceRow.tenant == job.tenant.id, InstanceRow.host == job.host.id, InstanceRow.address.is_not(None)
        )
    )
    return Confines(
        tenant=job.tenant.id,
        instance=job.instance.id,
        own=own,
        siblings=frozenset({own, *(ip_address(text) for text in siblings if text is not None)}),
        networks=(ip_network(subnet), *(ip_network(text) for text in job.tenant.addresses)),
        domains=tuple(job.tenant.domains),
    )


def _rules(job: _Job, confines: Confines) -> list[RuleRow]:
    """Return the rules of the descriptor, settled and inactive; raises if one does not lie within the tenant."""
    rows = []
    for traffic in job.appd.app_traffic_rule:
        to_netd_traffic(traffic, confines)
        settled = settle_traffic_rule(traffic, confines.own)
        rule = TrafficRule.model_validate({**settled.wire(), "state": "INACTIVE"})
        rows.append(_rule(job, "traffic", rule.traffic_rule_id, rule.wire()))
    for name in job.appd.app_dns_rule:
        to_netd_dns(name, confines)
        record = DnsRule.model_validate({**settle_dns_rule(name, confines.own).wire(), "state": "INACTIVE"})
        rows.append(_rule(job, "dns", record.dns_rule_id, record.wire()))
    return rows


def _rule(job: _Job, kind: str, rule: str, document: dict[str, Any]) -> RuleRow:
    return RuleRow(
        instance=job.instance.id,
        kind=kind,
        rule=rule,
        tenant=job.tenant.id,
        host=job.host.id,
        document=document,
        active=False,
        version=1,
    )
