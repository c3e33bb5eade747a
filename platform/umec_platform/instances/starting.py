"""Starts an instance: the steps of `lifecycle`, each of which may be done twice."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.jose import private_jwk, public_jwk
from umec_core.standing import Standing, StandingView
from umec_platform.effects import Ledger
from umec_platform.errors import HostFallen, HostForeign, StoppedMeanwhile
from umec_platform.hosts.confines import confines_of
from umec_platform.hosts.fleet import Fleet
from umec_platform.instances.decision import Decision, sign_decision
from umec_platform.instances.job import Job, end_job
from umec_platform.instances.ports import Admitted, Admitter, ClientRegistrar, NewClient, Puller
from umec_platform.instances.service import forget_instance, serves
from umec_platform.netd.messages import InstanceSpec
from umec_platform.packages.appd import AppD
from umec_platform.rules.confine import Confines
from umec_platform.rules.schemas import DnsRule, TrafficRule
from umec_platform.rules.translate import settle_dns_rule, settle_traffic_rule, to_netd_dns, to_netd_traffic
from umec_platform.tables.hosts import NetworkRow
from umec_platform.tables.instances import COMPLETED, INSTANTIATED, InstanceRow
from umec_platform.tables.packages import PackageRow
from umec_platform.tables.rules import RuleRow

__all__ = ["Site", "Starter"]

log = structlog.get_logger("umec.lifecycle")

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


class Starter:
    """Starts instances, one at a call."""

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
        new_key: Callable[[], EllipticCurvePrivateKey],
    ) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._site = site
        self._view = view
        self._admitter = admitter
        self._puller = puller
        self._registrar = registrar
        self._new_key = new_key

    async def start(self, job: Job) -> None:
        """Start the instance of an operation, or raise why not."""
        appd = job.appd
        standing = self._view.current(job.host.node, self._ledger.clock())  # 1
        if standing.standing is not Standing.TRUSTED:
            raise HostFallen(f"node {job.host.node} is {standing.standing.value}: it starts nothing new")
        if not serves(job.host, standing, job.tenant.id):
            raise HostForeign(f"host {job.host.id} is a node of another tenant")
        admitted = await self._admit(job)  # 2
        driver = await self._fleet.driver(job.host.id)
        there = await driver.pull(admitted.repository, admitted.digest)  # 3, where the host has a disk of its own
        blobs = there or await self._puller.pull(admitted.repository, admitted.digest)
        await self._place(job)  # 4
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
        await driver.stop_instance(job.instance.id)
        admitted = await self._admit(job)  # again: pulling may take long, and somebody may have denied the image
        spec = self._spec(job, admitted, str(blobs), key)  # 6
        started = await driver.start_instance(spec)  # 7
        await self._ledger.write(  # 8
            lambda session: self._started(session, job, str(started["address"]), admitted)
        )
        await self._tidy()

    async def _admit(self, job: Job) -> Admitted:
        """Return the admission of a job's image as things are now; what did not change costs nothing twice."""
        image = job.appd.image
        return await self._admitter.admit(
            tenant=job.tenant.id, repository=image.repository, digest=image.digest, now=self._ledger.clock()
        )

    async def _tidy(self) -> None:
        """Have images forgotten that nothing runs, if there are too many of them."""
        query = select(PackageRow.appd).join(InstanceRow, InstanceRow.package == PackageRow.id)
        wanted = query.where(or_(InstanceRow.state == INSTANTIATED, InstanceRow.busy.is_not(None)))
        try:
            async with self._ledger.store.read() as session:
                appds = list(await session.scalars(wanted))
            await self._puller.keep({AppD.model_validate(appd).image.digest for appd in appds})
        except Exception:
            log.exception("images that nothing runs may still be there")  # no reason to undo the start

    async def _place(self, job: Job) -> None:
        """Give the tenant its network on the host and the host its lease.

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

    def _spec(self, job: Job, admitted: Admitted, blobs: str, key: EllipticCurvePrivateKey) -> InstanceSpec:
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

    async def _started(self, session: AsyncSession, job: Job, address: str, admitted: Admitted) -> None:
        now = self._ledger.clock()
        row = await session.get_one(InstanceRow, job.instance.id)
        if row.busy != job.operation:
            raise StoppedMeanwhile("the instance went away while it was started")
        await forget_instance(session, row.id, until=job.began)
        await session.flush()
        row.state, row.address, row.ready, row.busy = INSTANTIATED, address, False, None
        row.version += 1
        await session.flush()
        for rule in _rules(job, await confines_of(session, row)):
            session.add(rule)
        await end_job(session, job, COMPLETED, now)
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


def _rules(job: Job, confines: Confines) -> list[RuleRow]:
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


def _rule(job: Job, kind: str, rule: str, document: dict[str, Any]) -> RuleRow:
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
