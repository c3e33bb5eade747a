"""A MEC platform with one tenant, one host and one instance in its rows, as a benchmark finds it."""

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.standing import Standing, StandingEntry, StandingStatement, StandingView
from umec_core.store import Store
from umec_core.tokens import ACCESS_TOKEN_TYPE, StaticKeys, TokenVerifier
from umec_platform.hosts.ports import Connect
from umec_platform.instances.ports import Admitted, NewClient
from umec_platform.nodeimages.ports import FoundImage
from umec_platform.service import PlatformService, PlatformSettings
from umec_platform.store import MIGRATIONS
from umec_platform.tables.hosts import HostRow, NetworkRow
from umec_platform.tables.instances import InstanceRow
from umec_platform.tables.packages import PackageRow
from umec_platform.tables.rules import RuleRow
from umec_platform.tables.tenants import TenantRow

__all__ = ["ADDRESS", "CLAIMED", "HOST", "INSTANCE", "MP1", "NODE", "SUBNET", "TENANT", "VERIFIER", "Keys", "opened"]

MANAGEMENT, MP1 = "https://localhost:8443", "https://localhost:8444"
VERIFIER = f"{MANAGEMENT}/attest/v1"
TENANT, HOST, NODE, INSTANCE = "city", "pole-7", "pole-7", "camera-1"
SUBNET, ADDRESS = "10.64.0.0/24", "10.64.0.2"
CLAIMED = "198.18.0.0/15"
"""Addresses that the tenant holds and its rules are about."""
FOREVER = timedelta(days=1)


@dataclass(frozen=True)
class Keys:
    """The keys of the verifier, the authorization server, the platform and one application."""

    verifier: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    issuer: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    decision: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    holder: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))

    def token(self, *, bound: bool) -> str:
        """Return an access token of the instance for Mp1, bound to its key or to nothing."""
        issued = int(system_clock().timestamp())
        claims: dict[str, Any] = {
            "iss": MANAGEMENT,
            "sub": INSTANCE,
            "client_id": INSTANCE,
            "aud": f"{MP1}/",
            "iat": issued,
            "exp": issued + 300,
            "jti": "one",
            "scope": "mec:services.read mec:services.write mec:app mec:traffic",
            "tenant": TENANT,
            "instance": INSTANCE,
            "node": NODE,
            "generation": 1,
        }
        if bound:
            claims["cnf"] = {"jkt": thumbprint(self.holder)}
        return sign_jwt(claims, self.issuer, typ=ACCESS_TOKEN_TYPE)

    def authorization(self, method: str, path: str, token: str, *, bound: bool) -> str:
        """Return the header lines that a request carries."""
        if not bound:
            return f"Authorization: Bearer {token}\r\n"
        proof = make_proof(self.holder, method, f"{MP1}{path}", now=system_clock(), access_token=token)
        return f"Authorization: DPoP {token}\r\nDPoP: {proof}\r\n"

    async def standings(self, *, after: int, wait: float, node: str | None) -> str:  # noqa: ARG002 - the feed's own
        """Return a statement that the node is trusted, as the verifier's feed does."""
        now = system_clock()
        entry = {"seq": 1, "node": NODE, "tenant": TENANT, "standing": "trusted", "generation": 1}
        claims = {"iss": VERIFIER, "iat": now.timestamp(), "after": after, "last": 1, "node": node}
        entries = [{**entry, "changed_at": "2026-01-01T00:00:00Z"}] if after < 1 else []
        return sign_jwt({**claims, "standings": entries}, self.verifier, typ="umec-standings+jwt")


class _Nobody:
    """The neighbours that no benchmark of this platform asks."""

    async def admit(self, **_: object) -> Admitted:
        raise NotImplementedError

    async def pull(self, repository: str, digest: str) -> Path:
        raise NotImplementedError

    async def keep(self, digests: Collection[str]) -> None:
        """There are no images here."""

    async def read(self, repository: str, digest: str) -> FoundImage:
        raise NotImplementedError

    async def register(self, client: NewClient) -> None:
        raise NotImplementedError

    async def remove(self, client_id: str) -> None:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def opened(
    folder: Path, keys: Keys, connect: Connect, netd: str, rules: Sequence[dict[str, Any]] = ()
) -> AsyncIterator[PlatformService]:
    """Open the platform on a database with the rows that the head of this module names, and active traffic rules."""
    database = f"sqlite+aiosqlite:///{folder}/platform.db"
    await _furnish(database, netd, rules)
    view, now = StandingView(max_age=FOREVER), system_clock()
    view.apply(StandingStatement(now, 0, 1, None, (StandingEntry(1, NODE, TENANT, Standing.TRUSTED, 1, now),)))

    def verifier(audience: str) -> TokenVerifier:
        return TokenVerifier(
            issuer=MANAGEMENT,
            audience=audience,
            keys=StaticKeys(KeySet([keys.issuer.public_key()])),
            standings=view,
            clock=system_clock,
            allow_bearer=True,
        )

    nobody = _Nobody()
    service = await PlatformService.open(
        PlatformSettings(database=database, management=MANAGEMENT, mp1=MP1, registry=MP1, ca="PEM"),
        management_verifier=verifier(f"{MANAGEMENT}/platform/v1"),
        mp1_verifier=verifier(f"{MP1}/"),
        view=view,
        source=keys,
        admitter=nobody,
        puller=nobody,
        registrar=nobody,
        connect=connect,
        decision_key=keys.decision,
        audit_key=generate_private_key(SECP256R1()),
        clock=system_clock,
        reader=nobody,
    )
    yield service
    await service.close()


async def _furnish(database: str, netd: str, rules: Sequence[dict[str, Any]]) -> None:
    now = system_clock()
    appd = {
        "appDId": "camera",
        "appName": "camera",
        "appProvider": TENANT,
        "appSoftVersion": "1",
        "appDVersion": "1",
        "mecVersion": ["3.1.1"],
        "swImageDescriptor": [{"swImage": f"{TENANT}/camera@sha256:{'ab' * 32}"}],
    }

    async def work(session: Any) -> None:  # noqa: ANN401 - a session of SQLAlchemy
        session.add(TenantRow(id=TENANT, name=TENANT, addresses=[CLAIMED], domains=["city.example"], created_at=now))
        session.add(
            HostRow(id=HOST, node=NODE, netd=netd, standing="trusted", generation=1, changed_at=now, created_at=now)
        )
        await session.flush()
        session.add(NetworkRow(host=HOST, tenant=TENANT, subnet=SUBNET))
        session.add(
            PackageRow(
                id="package", tenant=TENANT, app_d_id="camera", state="ONBOARDED", enabled=True, appd=appd,
                appd_sha256="cd" * 32, user_data=None, version=1, created_at=now,
            )
        )  # fmt: skip
        await session.flush()
        session.add(
            InstanceRow(
                id=INSTANCE, tenant=TENANT, package="package", name=None, description=None, host=HOST, address=ADDRESS,
                state="INSTANTIATED", ready=True, busy=None, version=1, created_at=now,
            )
        )  # fmt: skip
        await session.flush()
        session.add_all(
            RuleRow(
                instance=INSTANCE, kind="traffic", rule=rule["trafficRuleId"], tenant=TENANT, host=HOST, document=rule,
                active=rule["state"] == "ACTIVE", refusal=None, version=1,
            )
            for rule in rules
        )  # fmt: skip

    store = await Store.open(database, migrations=MIGRATIONS)
    await store.write(work)
    await store.close()
