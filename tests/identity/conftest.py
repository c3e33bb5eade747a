"""An authorization server over ASGI, with a verifier, a node and clients that are good until a test spoils one."""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from umec_core.client import ASSERTION_TYPE
from umec_core.dpop import make_proof
from umec_core.http import create_app
from umec_core.jose import KeySet, public_jwk, sign_jwt
from umec_core.standing import Standing, StandingEntry, StandingStatement, StandingView
from umec_core.tokens import Presented, StaticKeys, TokenVerifier
from umec_identity.clients.schemas import ClientIn
from umec_identity.service import IdentityService, operator_seed, service_seed
from umec_identity.settings import IdentitySettings

ISSUER = "https://authority.test:8443"
MP1 = "https://authority.test:8444"
REGISTRY = "https://authority.test:5443"
TOKEN = f"{ISSUER}/oauth2/token"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
EVERYTHING = ["mec:app", "mec:dns", "mec:services.read", "mec:services.write", "mec:traffic"]

__all__ = ["ISSUER", "MP1", "NOW", "REGISTRY", "TOKEN", "World", "p256"]


def p256() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def good(claims: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a test wants absent."""
    return {name: value for name, value in claims.items() if value is not ...}


@dataclass
class World:
    """The server and everybody around it; `now` is everybody's clock, `certificate` what the TLS peer shows."""

    settings: IdentitySettings
    now: datetime = NOW
    certificate: bytes | None = None
    verifier_key: EllipticCurvePrivateKey = field(default_factory=p256)
    node_key: EllipticCurvePrivateKey = field(default_factory=p256)
    keys: dict[str, EllipticCurvePrivateKey] = field(default_factory=dict)
    view: StandingView = field(default_factory=StandingView)
    seq: int = 0

    def __post_init__(self) -> None:
        for name in ("operator", "umec-platform", "app", "plain", "housed", "builder"):
            self.keys[name] = p256()
        self.stand("lamp-7", Standing.TRUSTED, 3)

    async def open(self) -> None:
        self.service = await IdentityService.open(
            self.settings,
            verifier_keys=StaticKeys(KeySet([self.verifier_key.public_key()])),
            standings=self.view,
            seeds=self.seeds(),
            clock=lambda: self.now,
        )
        app = create_app("identity", self.service.routers, counters=True)

        async def shown(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"client_certificate": self.certificate}
            await app(scope, receive, send)

        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(shown), base_url=ISSUER)

    def seeds(self) -> list[ClientIn]:
        return [
            operator_seed(self.keys["operator"].public_key()),
            service_seed("umec-platform", self.keys["umec-platform"].public_key()),
            self.client("app", kind="application", tenant="transit", scopes=EVERYTHING, instance="app"),
            self.client("plain", kind="application", tenant="transit", scopes=EVERYTHING, binding="bearer"),
            self.client("housed", kind="application", tenant="transit", scopes=EVERYTHING, node="lamp-7"),
            self.client("builder", kind="builder", tenant="transit", scopes=["images:push", "images:pull"]),
        ]

    async def close(self) -> None:
        await self.http.aclose()
        await self.service.close()

    def client(self, name: str, **properties: Any) -> ClientIn:
        key = self.keys.setdefault(name, p256())
        return ClientIn(client_id=name, jwks={"keys": [public_jwk(key)]}, **properties)

    # --- time and standing

    def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)
        self.refresh()

    def refresh(self) -> None:
        self.view.apply(StandingStatement(issued_at=self.now, after=self.seq, last=self.seq, node=None, entries=()))

    def stand(self, node: str, standing: Standing, generation: int) -> None:
        entry = StandingEntry(self.seq + 1, node, "transit", standing, generation, self.now)
        statement = StandingStatement(self.now, self.seq, self.seq + 1, None, (entry,))
        self.seq += 1
        self.view.apply(statement)

    # --- clients

    def assertion(
        self, client: str, *, key: EllipticCurvePrivateKey | None = None, typ: str = "JWT", **changes: Any
    ) -> str:
        seconds = int(self.now.timestamp())
        claims = {
            "iss": client,
            "sub": client,
            "aud": ISSUER,
            "iat": seconds,
            "exp": seconds + 60,
            "jti": secrets.token_hex(8),
        }
        return sign_jwt(good({**claims, **changes}), key or self.keys[client], typ=typ)

    def form(self, client: str = "app", **changes: Any) -> dict[str, Any]:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion(client),
        }
        return good({**form, **changes})

    def proof(self, client: str = "app", *, url: str = TOKEN, method: str = "POST") -> str:
        return make_proof(self.keys[client], method, url, now=self.now)

    async def ask(
        self, form: dict[str, Any] | None = None, *, client: str = "app", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        given = {"DPoP": self.proof(client)} if headers is None else headers
        return await self.http.post("/oauth2/token", data=self.form(client) if form is None else form, headers=given)

    async def token(self, client: str = "app", **changes: Any) -> str:
        answer = await self.ask(self.form(client, **changes), client=client)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def call(
        self, client: str, method: str, path: str, *, scope: str = "identity:clients", json: Any = None
    ) -> Any:
        token = await self.token(client, resource=f"{ISSUER}/identity/v1", scope=scope)
        return await self.http.request(method, path, json=json, headers=self.authorization(client, token, method, path))

    def authorization(self, client: str, token: str, method: str, path: str) -> dict[str, str]:
        proof = make_proof(self.keys[client], method, f"{ISSUER}{path}", now=self.now, access_token=token)
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    # --- nodes

    def ear(
        self, *, key: EllipticCurvePrivateKey | None = None, typ: str = "oauth-client-attestation+jwt", **changes: Any
    ) -> str:
        seconds = int(self.now.timestamp())
        claims = {
            "iss": f"{ISSUER}/attest/v1",
            "sub": "lamp-7",
            "aud": ISSUER,
            "iat": seconds,
            "exp": seconds + 300,
            "jti": secrets.token_hex(8),
            "eat_profile": "tag:github.com,2023:veraison/ear",
            "eat_nonce": secrets.token_hex(16),
            "ear.verifier-id": {"developer": "umec", "build": "0.1.0"},
            "submods": {"node": {"ear.status": changes.pop("status", "affirming")}},
            "cnf": {"jwk": public_jwk(self.node_key)},
            "umec": self.umec(),
        }
        return sign_jwt(good({**claims, **changes}), key or self.verifier_key, typ=typ)

    @staticmethod
    def umec(**changes: Any) -> dict[str, Any]:
        claims = {
            "tenant": "transit",
            "standing": "trusted",
            "generation": 3,
            "evidence_sha256": "0" * 64,
            "policy_sha256": "1" * 64,
            "reference_sha256": "2" * 64,
            "reference_version": 1,
        }
        return good({**claims, **changes})

    async def challenge(self) -> str:
        answer = await self.http.post("/oauth2/challenge")
        return str(answer.json()["attestation_challenge"])

    async def possession(
        self,
        *,
        key: EllipticCurvePrivateKey | None = None,
        typ: str = "oauth-client-attestation-pop+jwt",
        **changes: Any,
    ) -> str:
        claims = {
            "iss": "lamp-7",
            "aud": ISSUER,
            "iat": int(self.now.timestamp()),
            "jti": secrets.token_hex(8),
            "challenge": changes.pop("challenge", None) or await self.challenge(),
        }
        return sign_jwt(good({**claims, **changes}), key or self.node_key, typ=typ)

    async def certify(
        self, *, ear: str | None = None, pop: str | None = None, csr: str | None = None
    ) -> httpx.Response:
        csr = csr or make_csr(p256())
        pop = pop or await self.possession(csr_sha256=csr_digest(csr))
        headers = {"OAuth-Client-Attestation": ear or self.ear(), "OAuth-Client-Attestation-PoP": pop}
        return await self.http.post("/identity/v1/certificates", json={"csr": csr}, headers=headers)

    async def show_certificate(self) -> None:
        """Get a certificate and show it in every handshake from now on."""
        answer = await self.certify()
        assert answer.status_code == 201, answer.text
        self.certificate = x509.load_pem_x509_certificate(answer.json()["certificate"].encode()).public_bytes(
            Encoding.DER
        )

    async def ask_as_node(self, *, ear: str | None = None, pop: str | None = None, **changes: Any) -> httpx.Response:
        headers = {
            "OAuth-Client-Attestation": ear or self.ear(),
            "OAuth-Client-Attestation-PoP": pop or await self.possession(),
        }
        form = good({"grant_type": "client_credentials", "resource": f"{REGISTRY}/", "scope": "images:pull", **changes})
        return await self.http.post("/oauth2/token", data=form, headers=headers)

    # --- an API

    def api(self, audience: str, **options: Any) -> TokenVerifier:
        return TokenVerifier(
            issuer=ISSUER,
            audience=audience,
            keys=self.service.ring,
            standings=self.view,
            clock=lambda: self.now,
            denied=self.service.revocation.denied,
            **options,
        )

    def presented(self, token: str, client: str = "app", *, url: str = f"{MP1}/x") -> Presented:
        proof = make_proof(self.keys[client], "GET", url, now=self.now, access_token=token)
        return Presented(scheme="DPoP", token=token, proof=proof, method="GET", url=url)


def make_csr(key: EllipticCurvePrivateKey) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def csr_digest(pem: str) -> str:
    return hashlib.sha256(x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)).hexdigest()


Scenario = Callable[[World], Awaitable[None]]
Play = Callable[[Scenario], None]


@contextlib.asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[World]:
    world = World(IdentitySettings(issuer=ISSUER, mp1=MP1, registry=REGISTRY, state=folder, **settings))
    await world.open()
    try:
        yield world
    finally:
        await world.close()


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run a scenario against a server of its own."""

    def run(scenario: Scenario) -> None:
        async def whole() -> None:
            async with opened(tmp_path / "identity") as world:
                await scenario(world)

        asyncio.run(whole())

    return run


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Run scenarios against one server for the whole module: for matrices whose attempts leave nothing behind."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        world = runner.run(stack.enter_async_context(opened(tmp_path_factory.mktemp("shared") / "identity")))
        yield lambda scenario: runner.run(scenario(world))
        runner.run(stack.aclose())


@pytest.fixture(name="make_csr", scope="session")
def _make_csr() -> Callable[[EllipticCurvePrivateKey], str]:
    return make_csr


@pytest.fixture(name="csr_digest", scope="session")
def _csr_digest() -> Callable[[str], str]:
    return csr_digest


@pytest.fixture(name="opened", scope="session")
def _opened() -> Callable[..., contextlib.AbstractAsyncContextManager[World]]:
    return opened
