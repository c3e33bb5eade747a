"""A MEC platform with a real store, real HTTP applications and real tokens; only the machines around it are small.

`MemoryHost` keeps what a netd would put into the kernel (netd itself is tested in namespaces, in tests/netd); it can
be made silent or made to refuse. The neighbours (admission, registry, authorization server) are as small; their
adapters are tested against the real ones.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from umec_core.dpop import make_proof
from umec_core.errors import Refused, Unavailable
from umec_core.http import create_app
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.standing import Standing, StandingEntry, StandingStatement, StandingView
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_platform.instances.ports import Admitted, NewClient
from umec_platform.netd.errors import RemoteRefusal
from umec_platform.netd.messages import DnsRule, InstanceSpec, Tenant, TrafficRule
from umec_platform.nodeimages.ports import FoundImage
from umec_platform.service import PlatformService, PlatformSettings

MANAGEMENT = "https://authority.test:8443"
MP1 = "https://authority.test:8444"
REGISTRY = "https://authority.test:5443"
DIGEST = "sha256:" + "ab" * 32


class Silent(Unavailable):
    """The host does not answer."""

    code = "netd-unreachable"


class Unsigned(Refused):
    """What an admission that says no raises."""

    code = "image-unsigned"


@dataclass
class MemoryHost:
    """What one netd holds."""

    subnet: str = "10.64.1.0/24"
    silent: bool = False
    refuse: dict[str, str] = field(default_factory=dict)
    """From the name of a DNS rule, or "start", to the code that refuses it."""
    traffic: dict[str, TrafficRule] = field(default_factory=dict)
    dns: dict[str, DnsRule] = field(default_factory=dict)
    instances: dict[str, InstanceSpec] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    syncs: int = 0
    life: int = 1
    starts: int = 0
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    """From "sync", "pull", "put_dns", "delete_dns" or "put_tenant" to what it waits for before it does anything."""
    networks: set[str] = field(default_factory=set)
    held: list[str] = field(default_factory=list)
    looks: int = 0
    unanswered: int = 0
    """How often it was asked what it runs, and how often of these it was silent."""

    async def _held(self, what: str) -> None:
        if what in self.hold:
            self.held.append(what)
            await self.hold[what].wait()

    def restart(self) -> None:
        """Lose everything, as a netd does that ends and starts."""
        self.life += 1
        self.traffic, self.dns, self.instances = {}, {}, {}

    def _answer(self) -> None:
        if self.silent:
            raise Silent("the host does not answer")

    async def status(self) -> dict[str, Any]:
        self.looks += 1
        self.unanswered += self.silent
        self._answer()
        return {"began": str(self.life), "instances": [{"instance": one, "running": True} for one in self.instances]}

    async def instance_log(self, instance: str, *, lines: int) -> dict[str, Any]:
        self._answer()
        return {"instance": instance, "text": "hello\n" * min(lines, 3)}

    async def standing(self, statement: str) -> dict[str, Any]:
        self._answer()
        self.statements.append(statement)
        return {}

    async def put_tenant(self, tenant: str, *, subnet: str | None = None) -> dict[str, Any]:
        await self._held("put_tenant")
        self._answer()
        self.networks.add(tenant)
        return {"tenant": tenant, "subnet": subnet or self.subnet, "gateway": "10.64.1.1"}

    async def put_traffic(self, rule: TrafficRule) -> dict[str, Any]:
        self._answer()
        self.traffic[rule.id] = rule
        return {}

    async def delete_traffic(self, tenant: str, rule: str) -> dict[str, Any]:
        self._answer()
        assert tenant
        self.traffic.pop(rule, None)
        return {}

    async def put_dns(self, rule: DnsRule) -> dict[str, Any]:
        await self._held("put_dns")
        self._answer()
        if rule.name in self.refuse:
            raise RemoteRefusal(self.refuse[rule.name], "conflict", "refused by the host")
        self.dns[rule.id] = rule
        return {}

    async def delete_dns(self, tenant: str, rule: str) -> dict[str, Any]:
        await self._held("delete_dns")
        self._answer()
        assert tenant
        self.dns.pop(rule, None)
        return {}

    async def pull(self, repository: str, digest: str) -> Path | None:
        await self._held("pull")
        assert repository
        assert digest
        return None

    async def start_instance(self, spec: InstanceSpec) -> dict[str, Any]:
        self._answer()
        if "start" in self.refuse:
            raise RemoteRefusal(self.refuse["start"], "refused", "refused by the host")
        self.instances[spec.instance] = spec
        self.starts += 1
        return {"instance": spec.instance, "address": f"10.64.1.{9 + len(self.instances)}", "pid": 1}

    async def stop_instance(self, instance: str) -> dict[str, Any]:
        self._answer()
        self.instances.pop(instance, None)
        return {}

    async def sync(
        self,
        *,
        tenants: Sequence[Tenant],
        traffic: Sequence[TrafficRule],
        dns: Sequence[DnsRule],
        instances: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        await self._held("sync")
        self._answer()
        self.networks = {tenant.tenant for tenant in tenants}
        self.syncs += 1
        self.traffic = {rule.id: rule for rule in traffic}
        self.dns = {rule.id: rule for rule in dns if rule.name not in self.refuse}
        if instances is not None:
            self.instances = {name: spec for name, spec in self.instances.items() if name in instances}
        refused = [
            {
                "kind": "dns",
                "tenant": rule.tenant,
                "id": rule.id,
                "code": self.refuse[rule.name],
                "detail": "no",
                "sort": "conflict",
            }
            for rule in dns
            if rule.name in self.refuse
        ]
        return {"traffic": len(self.traffic), "dns": len(self.dns), "refused": refused, "in_force": True}


@dataclass
class Neighbours:
    """Admission, registry, authorization server and verifier, as far as the platform calls them."""

    refused: bool = False
    clients: dict[str, NewClient] = field(default_factory=dict)
    pulled: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None
    asked: int = 0
    """How often it was asked to admit an image."""

    async def admit(self, *, tenant: str, repository: str, digest: str, now: datetime) -> Admitted:
        assert tenant
        assert now
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.refused:
            raise Unsigned("nobody signed the image")
        return Admitted(repository=repository, digest=digest, policies=("p1",), policy_sha256="cd" * 32)

    async def keep(self, digests: Collection[str]) -> None:
        self.kept = set(digests)

    async def pull(self, repository: str, digest: str) -> Path:
        self.pulled.append(f"{repository}@{digest}")
        return Path("/var/lib/umec/blobs")

    async def read(self, repository: str, digest: str) -> FoundImage:
        """A node image whose digest ends in its version."""
        assert repository
        version = int(digest[-2:])
        return FoundImage("street-node", version, f"sha256:{version:064d}", f"sha256:{version + 100:064d}")

    async def register(self, client: NewClient) -> None:
        self.clients[client.client_id] = client

    async def remove(self, client_id: str) -> None:
        self.clients.pop(client_id, None)

    async def standings(self, *, after: int, wait: float, node: str | None) -> str:
        assert (after, wait) == (0, 0)
        return f"statement.about.{node}"


@dataclass
class World:
    """The platform and everything around it. A second `open` is a restart on the same database."""

    folder: Path
    now: datetime = field(default_factory=lambda: datetime(2026, 11, 22, 12, 0, tzinfo=UTC))
    token_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    client_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    platform_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    audit_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    host: MemoryHost = field(default_factory=MemoryHost)
    other_host: MemoryHost = field(default_factory=lambda: MemoryHost(subnet="10.64.2.0/24"))
    neighbours: Neighbours = field(default_factory=Neighbours)
    view: StandingView = field(default_factory=StandingView)
    seq: int = 0

    def __post_init__(self) -> None:
        self.service: PlatformService | None = None

    def _verifier(self, audience: str) -> TokenVerifier:
        return TokenVerifier(
            issuer=MANAGEMENT,
            audience=audience,
            keys=StaticKeys(KeySet([self.token_key.public_key()])),
            standings=self.view,
            clock=lambda: self.now,
        )

    @contextlib.asynccontextmanager
    async def open(self, *, working: bool = True) -> AsyncIterator["World"]:
        """Open the platform; `working` False leaves everything that runs beside the endpoints out."""
        service = await PlatformService.open(
            PlatformSettings(
                database=f"sqlite+aiosqlite:///{self.folder}/platform.db",
                management=MANAGEMENT,
                mp1=MP1,
                registry=REGISTRY,
                ca="PEM",
            ),
            management_verifier=self._verifier(f"{MANAGEMENT}/platform/v1"),
            mp1_verifier=self._verifier(f"{MP1}/"),
            view=self.view,
            source=self.neighbours,
            admitter=self.neighbours,
            puller=self.neighbours,
            registrar=self.neighbours,
            connect=lambda path: self.host if path == "/run/a" else self.other_host,
            decision_key=self.platform_key,
            audit_key=self.audit_key,
            clock=lambda: self.now,
            reader=self.neighbours,
        )
        self.service = service
        apps = {
            MANAGEMENT: create_app("management", service.management_routers),
            MP1: create_app("mp1", service.mp1_routers),
        }
        mounts = {url: httpx.ASGITransport(app) for url, app in apps.items()}
        task = asyncio.create_task(service.run()) if working else None
        async with httpx.AsyncClient(mounts=mounts, timeout=20) as self.http:
            try:
                yield self
            finally:
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                await service.close()

    def token(self, audience: str, scope: str, **claims: Any) -> str:
        at = int(self.now.timestamp())
        known = {
            "iss": MANAGEMENT,
            "sub": "operator",
            "client_id": "operator",
            "aud": audience,
            "iat": at,
            "exp": at + 300,
            "jti": "j",
            "scope": scope,
            "cnf": {"jkt": thumbprint(self.client_key)},
            **claims,
        }
        return sign_jwt(known, self.token_key, typ="at+jwt")

    async def call(self, method: str, url: str, token: str | None, **arguments: Any) -> httpx.Response:
        headers = dict(arguments.pop("headers", {}))
        if token is not None:
            proof = make_proof(self.client_key, method, url, now=self.now, access_token=token)
            headers |= {"Authorization": f"DPoP {token}", "DPoP": proof}
        return await self.http.request(method, url, headers=headers, **arguments)

    async def operate(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Call the management interface as the operator."""
        token = self.token(f"{MANAGEMENT}/platform/v1", "platform:admin")
        return await self.call(method, MANAGEMENT + path, token, **arguments)

    def app_token(self, instance: str, tenant: str, *, scope: str | None = None, node: str = "node-a") -> str:
        known = self.view.entries.get(node)
        return self.token(
            f"{MP1}/",
            scope or "mec:services.read mec:services.write mec:app mec:traffic mec:dns",
            sub=instance,
            client_id=instance,
            tenant=tenant,
            instance=instance,
            node=node,
            generation=known.generation if known is not None else 0,
        )

    async def apply(
        self, instance: str, method: str, path: str, *, tenant: str = "harbour", **arguments: Any
    ) -> httpx.Response:
        """Call Mp1 as an application instance."""
        node = arguments.pop("node", "node-a")
        return await self.call(method, MP1 + path, self.app_token(instance, tenant, node=node), **arguments)

    async def stand(self, node: str, standing: Standing, generation: int) -> None:
        """Let the verifier say what a node is worth, to the view and to the platform."""
        self.seq += 1
        self.now += timedelta(milliseconds=1)
        entry = StandingEntry(self.seq, node, "harbour", standing, generation, self.now)
        news = self.view.apply(StandingStatement(self.now, self.seq - 1, self.seq, None, (entry,)))
        if self.service is not None:
            await self.service.on_standing(news)

    async def looked(self) -> None:
        """Return when the host was looked at anew, and what was found is written down."""
        begun = self.host.looks  # the look that is under way may have read older rows; then comes ours, and one more
        await until(lambda: self.host.looks >= begun + 3)

    async def furnish(self) -> None:
        """Make two tenants and two hosts with trusted nodes."""
        for tenant, address in (("harbour", "203.0.113.8/29"), ("transit", "203.0.113.16/29")):
            made = {"id": tenant, "name": tenant, "addresses": [address], "domains": [f"{tenant}.example"]}
            assert (await self.operate("POST", "/platform/v1/tenants", json=made)).status_code == 201
        for name, node, path in (("host-a", "node-a", "/run/a"), ("host-b", "node-b", "/run/b")):
            made = {"id": name, "node": node, "netd": path}
            assert (await self.operate("POST", "/platform/v1/hosts", json=made)).status_code == 201
            await self.stand(node, Standing.TRUSTED, 1)

    async def onboard(self, tenant: str = "harbour", **members: Any) -> str:
        """Onboard the descriptor of a tenant's application; returns the package."""
        answer = await self.operate("POST", f"/app_pkgm/v1/app_packages?tenant={tenant}", json={})
        assert answer.status_code == 201, answer.text
        package = str(answer.json()["id"])
        path = f"/app_pkgm/v1/app_packages/{package}/package_content"
        answer = await self.operate("PUT", path, json=descriptor(tenant, **members))
        assert answer.status_code == 200, answer.text
        return package

    async def instantiate(self, tenant: str = "harbour", host: str = "host-a") -> str:
        """Start an instance of the tenant's descriptor and return it when it runs."""
        made = await self.operate("POST", f"/app_lcm/v1/app_instances?tenant={tenant}", json={"appDId": "hello-1"})
        assert made.status_code == 201, made.text
        instance = str(made.json()["id"])
        operation = await self.order(instance, "instantiate", {"mecHostInformation": [{"hostId": host}]})
        assert operation["operationState"] == "COMPLETED", operation
        return instance

    async def order(self, instance: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """Order an operation and return it when it has ended."""
        answer = await self.operate("POST", f"/app_lcm/v1/app_instances/{instance}/{what}", json=body)
        assert answer.status_code == 202, answer.text
        path = answer.headers["Location"].removeprefix(MANAGEMENT)
        found: dict[str, Any] = {}

        async def ended() -> bool:
            found.update((await self.operate("GET", path)).json())
            return found["operationState"] in {"COMPLETED", "FAILED"}

        await until(ended)
        return found


async def until(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    """Return as soon as something holds; fail if it does not even on a slow machine."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if (await found) if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


def descriptor(tenant: str = "harbour", **members: Any) -> dict[str, Any]:
    """Return a good descriptor of a tenant's application."""
    address = "203.0.113.10" if tenant == "harbour" else "203.0.113.18"
    document = {
        "appDId": "hello-1",
        "appName": "hello",
        "appProvider": tenant,
        "appSoftVersion": "1.0",
        "appDVersion": "1",
        "mecVersion": ["3.1.1"],
        "swImageDescriptor": [{"swImage": f"{tenant}/hello@{DIGEST}"}],
        "appTrafficRule": [
            {
                "trafficRuleId": "Web",
                "filterType": "FLOW",
                "priority": 1,
                "trafficFilter": [{"dstAddress": [address], "dstPort": ["80"], "protocol": ["TCP"]}],
                "action": "FORWARD_DECAPSULATED",
                "dstInterface": [{"interfaceType": "IP"}],
            }
        ],
        "appDNSRule": [
            {
                "dnsRuleId": "Name",
                "domainName": f"hello.{tenant}.example",
                "ipAddressType": "IP_V4",
                "ipAddress": address,
                "ttl": 30,
            }
        ],
        "requestedPermissions": ["mec:services.read", "mec:services.write", "mec:app", "mec:traffic", "mec:dns"],
    }
    return {**document, **members}


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield World(Path(folder))


@pytest.fixture
def make_descriptor() -> Callable[..., dict[str, Any]]:
    return descriptor


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return until
