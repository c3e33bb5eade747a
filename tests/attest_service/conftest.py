"""A whole attestation service over HTTP, with real software TPMs on the other side."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.predict import predict
from umec_attest.reference import sign_reference_set
from umec_attest.service import AttestService, AttestSettings
from umec_attest.testing.authority import EndorsementAuthority
from umec_attest.testing.firmware import boot
from umec_attest.testing.image import Tamper, make_image
from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.http import create_app
from umec_core.jose import KeySet, sign_jwt
from umec_core.standing import StandingStatement, StandingView, verify_statement
from umec_core.store import Store
from umec_core.tokens import StaticKeys, TokenVerifier

MGMT = "https://edge.example:8443"
ISSUER = f"{MGMT}/attest/v1"
TOKEN_KEY = generate_private_key(SECP256R1())
SIGNER = generate_private_key(SECP256R1())
IMAGE = "edge-node"


class ManualClock:
    """A clock that stands until it is moved: a time at which a software TPM's certificates of today are good."""

    def __init__(self) -> None:
        self.now = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Tpms:
    """Two TPMs of one authority, made once for all tests."""

    authority: EndorsementAuthority
    tpms: list[SoftwareTpm]
    image: Path

    @contextlib.contextmanager
    def booted(self, name: str = "node-1", index: int = 0) -> Iterator["BootedNode"]:
        """A node of new keys whose TPM was just switched on and measured the good image."""
        tpm = self.tpms[index]
        tpm.power_cycle()
        log = boot(tpm, self.image)
        with SoftwareNode(tpm, name=name) as node:
            yield BootedNode(self, tpm, node, log)


@dataclass
class BootedNode:
    """A node, and the boot log of its last boot."""

    owner: Tpms
    tpm: SoftwareTpm
    node: SoftwareNode
    log: bytes

    def reboot(self, tamper: Tamper | None = None) -> None:
        """Switch the TPM off and on and measure again; the enrolled keys stay."""
        self.tpm.power_cycle()
        self.boot(tamper)

    def hibernate(self) -> None:
        """Save the TPM's state, switch it off and on, and measure again: it counts a restart, and no reset."""
        self.tpm.hibernate()
        self.boot()

    def boot(self, tamper: Tamper | None = None) -> None:
        """Measure again, on a TPM that was just switched on."""
        self.log = boot(self.tpm, self.owner.image, tamper=tamper)

    def evidence(self, challenge: dict[str, Any]) -> dict[str, Any]:
        """The answer to a challenge."""
        return self.node.evidence(challenge, boot_log=self.log)


class World:
    """An open service, as its clients see it."""

    def __init__(self, folder: Path, tpms: Tpms, *, clock: ManualClock | None = None, **changes: Any) -> None:
        self.tpms = tpms
        self.clock = clock or ManualClock()
        self.folder = folder
        roots = folder / "roots"
        roots.mkdir(exist_ok=True)
        (roots / "vendor.pem").write_text(tpms.authority.root_pem)
        signer = folder / "signer.pem"
        signer.write_bytes(SIGNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        values = {
            "management_url": MGMT,
            "state": folder / "state",
            "database": f"sqlite+aiosqlite:///{folder}/attest.db",
            "ca_sha256": "ab" * 32,
            "ek_roots": roots,
            "software_tpms": True,
            "reference_signers": (signer,),
        }
        self.settings = AttestSettings(**{**values, **changes})
        self.view = StandingView()
        self.service: AttestService
        self.http: httpx.AsyncClient

    async def __aenter__(self) -> "World":
        keys = StaticKeys(KeySet([TOKEN_KEY.public_key()]))
        tokens = TokenVerifier(
            issuer=MGMT, audience=ISSUER, keys=keys, standings=self.view, clock=self.clock, allow_bearer=True
        )
        self.service = await AttestService.open(self.settings, tokens=tokens, clock=self.clock)
        app = create_app("attest", self.service.routers, ready=self.service.ready)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=MGMT)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self.service.close()

    def token(self, *scopes: str, audience: str = ISSUER, **claimed: Any) -> dict[str, str]:
        """A header with an access token of the authorization server; `claimed`: tenant, node, generation."""
        now = int(self.clock().timestamp())
        claims = {
            "iss": MGMT,
            "sub": "operator",
            "client_id": "operator",
            "aud": audience,
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "scope": " ".join(scopes),
            **claimed,
        }
        return {"authorization": f"Bearer {sign_jwt(claims, TOKEN_KEY, typ='at+jwt')}"}

    @property
    def admin(self) -> dict[str, str]:
        return self.token("attest:admin", "attest:read", "standings:read")

    async def post(self, path: str, body: Any = None, *, status: int = 200, headers: Any = None) -> dict[str, Any]:
        answer = await self.http.post(f"/attest/v1/{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def get(self, path: str, *, status: int = 200, headers: Any = None, **query: Any) -> dict[str, Any]:
        answer = await self.http.get(f"/attest/v1/{path}", params=query, headers=headers or self.admin)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def ticket(self, node: SoftwareNode, **changes: Any) -> str:
        body = {"asset": node.name, "tenant": "acme", "image": IMAGE, "ek_sha256": node.ek_sha256, **changes}
        return str((await self.post("tickets", body, status=201, headers=self.admin))["ticket"])

    async def enrol(self, node: SoftwareNode, *, ticket: str | None = None) -> dict[str, Any]:
        begun = await self.post("enrolments", node.enrolment(ticket=ticket), status=201)
        body = await asyncio.to_thread(node.activation, begun)
        return await self.post(f"enrolments/{begun['enrolment']}/activation", body)

    async def reference(
        self,
        version: int = 1,
        *,
        key: Any = SIGNER,
        status: int = 201,
        days: int = 30,
        runtime: Any = None,
        starts: bool = False,
    ) -> Any:
        envelope = self.envelope(version, key=key, days=days, runtime=runtime, starts=starts)
        answer = await self.http.post("/attest/v1/reference-sets", content=envelope, headers=self.admin)
        assert answer.status_code == status, answer.text
        return answer.json()

    def envelope(
        self, version: int = 1, *, key: Any = SIGNER, days: int = 30, runtime: Any = None, starts: bool = False
    ) -> bytes:
        image = predict(self.tpms.image)
        predicted = image.pcrs
        if runtime is not None:  # its list begins with a hash over PCR 0 to 9
            predicted = {**predicted, 8: bytes(32)}
        pcrs = {HashAlgorithm.SHA256: {index: [value] for index, value in predicted.items()}}
        now = self.clock()
        return sign_reference_set(
            name=IMAGE,
            subject_sha256="cd" * 32,
            version=version,
            issued=now,
            expires=now + timedelta(days=days),
            pcrs=pcrs,
            ignored={},
            runtime=runtime,
            starts=starts,
            stages=image.stages,
            key=key,
        )

    async def challenge(self, node: str = "node-1") -> dict[str, Any]:
        return await self.post("challenges", {"node": node})

    async def round(self, booted: BootedNode, *, status: int = 200) -> dict[str, Any]:
        """One round: a challenge and its answer."""
        challenge = await self.challenge(booted.node.name)
        return await self.post("evidence", booted.evidence(challenge), status=status)

    async def ready_node(self, booted: BootedNode) -> dict[str, Any]:
        """Enrol a node with a ticket, give it a reference set, and let it be judged once."""
        await self.enrol(booted.node, ticket=await self.ticket(booted.node))
        if not (await self.get("reference-sets"))["reference_sets"]:
            await self.reference()
        return await self.round(booted)

    async def pass_time(self, seconds: float) -> None:
        """Let time go by while the service is there: it looks around at least every five seconds."""
        while seconds > 0:
            step = min(seconds, 5)
            self.clock.advance(step)
            seconds -= step
            await self.service.look()

    @contextlib.asynccontextmanager
    async def writer_held(self) -> AsyncIterator[None]:
        """Let every write wait, in the order in which they come, until the block ends."""
        holds, released = asyncio.Event(), asyncio.Event()

        async def hold(_session: AsyncSession) -> None:
            holds.set()
            await released.wait()

        holding = asyncio.create_task(self.service._store.write(hold))
        await holds.wait()
        try:
            yield
        finally:
            released.set()
            await holding

    async def statement(self, after: int = 0, **query: Any) -> StandingStatement:
        answer = await self.get("standings", after=after, **query)
        keys = KeySet.from_jwks((await self.http.get("/attest/v1/jwks")).json())
        return verify_statement(answer["statement"], keys, issuer=ISSUER, now=self.clock())

    async def audited(self) -> list[tuple[str, str, str | None]]:
        """(action, outcome, code) of every audit entry."""
        log = await self.get("audit")
        return [(entry["action"], entry["outcome"], entry.get("code")) for entry in log["entries"]]


@pytest.fixture(scope="session")
def tpms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpms]:
    folder = tmp_path_factory.mktemp("tpms")
    authority = EndorsementAuthority.create(folder / "authority")
    image = make_image(folder / "image")
    with SoftwareTpm(authority=authority) as first, SoftwareTpm(authority=authority) as second:
        yield Tpms(authority, [first, second], image)


@pytest.fixture
def run(tmp_path: Path, tpms: Tpms) -> Callable[..., None]:
    """Run an async test body with an open World."""

    def runner(body: Callable[[World], Awaitable[None]], **changes: Any) -> None:
        async def opened() -> None:
            async with World(tmp_path, tpms, **changes) as world:
                await body(world)

        asyncio.run(opened())

    return runner


@pytest.fixture
def hand_in() -> Callable[..., Awaitable[None]]:
    """Wait until a task has come as far as its write, while another write holds the writer."""

    async def wait(store: Store, task: "asyncio.Task[Any]") -> None:
        jobs = store._writes._jobs  # type: ignore[attr-defined]  # of SQLite's writer
        before = jobs.qsize()
        while jobs.qsize() == before:
            assert not task.done(), task
            await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def reopen(tmp_path: Path, tpms: Tpms) -> Callable[..., contextlib.AbstractAsyncContextManager[World]]:
    """Open a service on the same state again and again, as restarts do."""

    @contextlib.asynccontextmanager
    async def opened(clock: ManualClock, **changes: Any) -> AsyncIterator[World]:
        async with World(tmp_path, tpms, clock=clock, **changes) as world:
            yield world

    return opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
