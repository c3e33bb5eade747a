"""The software TPM, and a stand-in for the platform that says no when told to.

The stand-in really seals, verifies and issues; it lacks policies, storage and standing. What needs those is tested
against the real services. Here the agent meets what those never do: garbage, silence, restarts.
"""

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from fastapi import APIRouter, Header, Query, Request

from umec_attest.agent.enrol import enrol, plan_enrolment
from umec_attest.agent.loop import Agent
from umec_attest.agent.pace import Pace
from umec_attest.agent.state import load_state
from umec_attest.agent.tpm import Tpm
from umec_attest.certificates import TrustStore, load_certificate
from umec_attest.credential import make_credential
from umec_attest.digests import parse_pcr_values
from umec_attest.ek_certificate import EkPolicy
from umec_attest.enrolment import check_ak, check_ek, verify_certify
from umec_attest.quote import verify_quote
from umec_attest.rotation import Statement, check_new_keys, verify_rotation
from umec_attest.service.rotation.errors import RotationDone
from umec_attest.testing import firmware
from umec_attest.testing.image import make_image
from umec_attest.testing.node import DEFAULT_PCRS
from umec_attest.testing.plugin import software_node, software_tpm
from umec_attest.testing.swtpm import SoftwareTpm
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import Public, parse_public
from umec_core.errors import Forbidden, NotFound, UmecError, Unavailable
from umec_core.http import client_certificate, create_app
from umec_core.jose import KeySet, public_jwk, sign_jwt, verify_jwt
from umec_core.keys import private_pem
from umec_core.note import sign_checkpoint
from umec_core.server import Listener, serve
from umec_core.tokens import certificate_thumbprint
from umec_core.tree import Tree

__all__ = ["scene", "server_ca", "shared_tpm", "software_node", "software_tpm", "standin"]

NAME = "127.0.0.1"
NAMED_BY_THE_SITE = "tpm-0123456789abcdef"


@dataclass
class Authority:
    """A CA whose key the test holds."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key(), hours=1)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(key, builder.sign(key, SHA256()))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()

    def issue_server(self, key: Any) -> x509.Certificate:
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(NAME))]
        return self.issue("server", key, seconds=3600, names=names)

    def issue(self, name: str, key: Any, *, seconds: float, names: list[x509.GeneralName]) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self.certificate.subject, key, hours=seconds / 3600)
        return builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(self.key, SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, *, hours: float) -> x509.CertificateBuilder:
    now = datetime.now(UTC)  # noqa: TID251 - certificates of a test that runs now
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=hours))
    )


@dataclass
class Standin:
    """A platform at an address that stays.

    `faults` are answers (exceptions) for the next requests of a path, `held` what its requests wait for.
    """

    folder: Path
    port: int = 0
    server_ca: Authority = field(default_factory=lambda: Authority.create("server CA"))
    node_ca: Authority = field(default_factory=lambda: Authority.create("node CA"))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    faults: dict[str, list[UmecError | dict[str, Any]]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Public]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    approves: bool = True
    verdict: str = "affirming"
    generation: int = 1
    boot_log: str = "full"
    evidence: list[dict[str, Any]] = field(default_factory=list)
    round_seconds: float = 0.3
    certificate_seconds: float = 300.0
    ear: str | None = None
    ear_seconds: float = 300.0
    log: Tree = field(default_factory=Tree)
    log_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    lost_answers: set[str] = field(default_factory=set)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    _pending: dict[str, Any] = field(default_factory=dict)
    _nonces: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Standin"]:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self.server_ca.issue_server(key.public_key())
        paths = [self.folder / name for name in ("server.pem", "server.key", "node-ca.pem")]
        texts = [leaf.public_bytes(Encoding.PEM), private_pem(key), self.node_ca.pem.encode()]
        for path, text in zip(paths, texts, strict=True):
            path.write_bytes(text)
        app = create_app("standin", [self._router()])
        listener = Listener(app, NAME, self.port, certificate=paths[0], key=paths[1], client_ca=paths[2])
        bound = listener.bind()
        self.port = bound.getsockname()[1]
        stop = asyncio.Event()
        serving = asyncio.create_task(serve([listener], stop, sockets=[bound]))
        try:
            yield self
        finally:
            stop.set()
            await serving

    def _fault(self, path: str) -> dict[str, Any] | None:
        self.asked.append(path)
        waiting = self.faults.get(path, [])
        if not waiting:
            return None
        fault = waiting.pop(0)
        if isinstance(fault, UmecError):
            raise fault
        return fault

    async def _hold(self, path: str) -> None:
        if path in self.held:
            await self.held[path].wait()

    def _router(self) -> APIRouter:
        router = APIRouter()

        @router.post("/attest/v1/enrolments", status_code=201)
        async def enrol(body: dict[str, Any]) -> dict[str, Any]:
            if (fault := self._fault("enrolments")) is not None:
                return fault
            ek, ak, node_key = (
                parse_public(base64.b64decode(body[name])) for name in ("ek_public", "ak_public", "node_key_public")
            )
            ek = check_ek(
                public=ek,
                certificate=base64.b64decode(body["ek_certificate"]),
                chain=[base64.b64decode(one) for one in body["ek_chain"]],
                policy=self._pending["policy"],
                now=datetime.now(UTC),  # noqa: TID251
            ).public
            secret = os.urandom(32)
            credential = make_credential(ek, check_ak(ak).name(), secret)
            self._pending["1"] = (body.get("node", NAMED_BY_THE_SITE), ek, ak, node_key, secret)
            return {
                "enrolment": "1",
                "credential_blob": _b64(credential.blob),
                "encrypted_secret": _b64(credential.encrypted_secret),
                "expires_at": "2099-01-01T00:00:00Z",
            }

        @router.post("/attest/v1/enrolments/{enrolment}/activation")
        async def activate(enrolment: str, body: dict[str, str]) -> dict[str, Any]:
            if (fault := self._fault("activation")) is not None:
                return fault
            node, ek, ak, node_key, secret = self._pending.pop(enrolment)
            if base64.b64decode(body["secret"]) != secret:
                raise Forbidden("another secret")
            verify_certify(
                attest=base64.b64decode(body["certify_attest"]),
                signature=base64.b64decode(body["certify_signature"]),
                ak=ak,
                ak_parent=ek,
                node_key=node_key,
                qualifying=hashlib.sha256(secret).digest(),
            )
            self.nodes[node] = {"ek": ek, "ak": ak, "node_key": node_key}
            return {"node": node, "standing": "pending", "approved": self.approves}

        @router.post("/attest/v1/challenges")
        async def challenge(body: dict[str, str]) -> dict[str, Any]:
            if (fault := self._fault("challenges")) is not None:
                return fault
            nonce = os.urandom(32)
            self._nonces[body["node"]] = nonce
            return {
                "challenge": "c",
                "nonce": _b64(nonce),
                "pcrs": {"sha256": list(DEFAULT_PCRS)},
                "boot_log": self.boot_log,
                "deadline": "2099-01-01T00:00:00Z",
                "round_seconds": self.round_seconds,
            }

        @router.post("/attest/v1/evidence")
        async def evidence(body: dict[str, Any]) -> dict[str, Any]:
            if (fault := self._fault("evidence")) is not None:
                return fault
            self.evidence.append(body)
            known = self.nodes[body["node"]]
            verify_quote(
                attest=base64.b64decode(body["quote"]),
                signature=base64.b64decode(body["signature"]),
                ak=known["ak"],
                ak_parent=known["ek"],
                nonce=self._nonces.pop(body["node"]),
                selection=PcrSelection.from_mapping({"sha256": DEFAULT_PCRS}),
                pcrs=parse_pcr_values(body["pcrs"]),
            )
            self.log.append(os.urandom(8))
            good = self.verdict == "affirming"
            return {
                "verdict": self.verdict,
                "standing": "trusted" if good else "untrusted",
                "generation": self.generation,
                "findings": [] if good else [{"id": "pcr-4-unexpected", "detail": "another kernel"}],
                "trust_vector": {},
                "ear": (self.ear or self._ear(body["node"], known["node_key"])) if good else None,
            }

        @router.get("/attest/v1/checkpoint")
        async def checkpoint(first: int = Query(alias="from")) -> dict[str, Any]:
            if (fault := self._fault("checkpoint")) is not None:
                return fault
            size = self.log.size
            proof = self.log.consistency(first) if 0 < first <= size else []
            return {
                "origin": "umec/attest",
                "key": _b64(self.log_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
                "checkpoint": sign_checkpoint("umec/attest", size, self.log.root(), self.log_key),
                "proof": [_b64(node) for node in proof],
            }

        @router.post("/attest/v1/rotations", status_code=201)
        async def rotate(body: dict[str, Any]) -> dict[str, Any]:
            if (fault := self._fault("rotations")) is not None:
                return fault
            known = self.nodes[body["node"]]
            ak, node_key = (parse_public(base64.b64decode(body[name])) for name in ("ak_public", "node_key_public"))
            if ak == known["ak"] and node_key == known["node_key"]:
                raise RotationDone("it has these keys")
            secret = os.urandom(32)
            self._pending["rotation"] = (ak, node_key, secret)
            credential = make_credential(known["ek"], ak.name(), secret)
            return {
                "permit": "p",
                "credential_blob": _b64(credential.blob),
                "encrypted_secret": _b64(credential.encrypted_secret),
                "pcrs": {"sha256": list(DEFAULT_PCRS)},
                "expires_at": "2099-01-01T00:00:00Z",
            }

        @router.post("/attest/v1/rotations/proof")
        async def prove(body: dict[str, Any]) -> dict[str, Any]:
            if (fault := self._fault("rotations-proof")) is not None:
                return fault
            known = self.nodes[body["node"]]
            ak, node_key, secret = self._pending.pop("rotation")
            assert base64.b64decode(body["secret"]) == secret
            said = {
                name: Statement(*(base64.b64decode(body[name][part]) for part in ("attest", "signature")))
                for name in ("ak_certified", "node_key_certified", "quoted")
            }
            verify_rotation(
                keys=check_new_keys(ak=ak, node_key=node_key, present=(known["ak"], known["node_key"])),
                present_ak=known["ak"],
                ek=known["ek"],
                qualifying=hashlib.sha256(secret).digest(),
                selection=PcrSelection.from_mapping({"sha256": DEFAULT_PCRS}),
                pcrs=parse_pcr_values(body["pcrs"]),
                **said,
            )
            self.nodes[body["node"]] = {"ek": known["ek"], "ak": ak, "node_key": node_key}
            self.generation += 1
            if "rotations-proof" in self.lost_answers:
                self.lost_answers.remove("rotations-proof")
                raise Unavailable("the answer is lost")
            return {"node": body["node"], "standing": "trusted", "generation": self.generation}

        @router.post("/attest/v1/secrets/release")
        async def release(body: dict[str, Any]) -> dict[str, Any]:
            fault = self._fault("release")
            if fault is None:
                raise NotFound(f"no secret {body['name']}")
            return fault

        @router.post("/oauth2/challenge")
        async def pop_challenge() -> dict[str, Any]:
            return self._fault("oauth2-challenge") or {"attestation_challenge": "p"}

        @router.post("/identity/v1/certificates", status_code=201)
        async def certificates(
            body: dict[str, str],
            oauth_client_attestation: str = Header(),
            oauth_client_attestation_pop: str = Header(),
        ) -> dict[str, Any]:
            if (fault := self._fault("certificates")) is not None:
                return fault
            await self._hold("certificates")
            node, proof = self._prove(oauth_client_attestation, oauth_client_attestation_pop)
            csr = x509.load_pem_x509_csr(body["csr"].encode())
            assert csr.is_signature_valid
            assert proof["csr_sha256"] == hashlib.sha256(csr.public_bytes(Encoding.DER)).hexdigest()
            names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:umec:node:{node}")]
            leaf = self.node_ca.issue(node, csr.public_key(), seconds=self.certificate_seconds, names=names)
            return {
                "certificate": leaf.public_bytes(Encoding.PEM).decode(),
                "chain": self.node_ca.pem,
                "expires_at": leaf.not_valid_after_utc.isoformat(),
            }

        @router.post("/oauth2/token")
        async def token(
            request: Request,
            oauth_client_attestation: str = Header(),
            oauth_client_attestation_pop: str = Header(),
        ) -> dict[str, Any]:
            if (fault := self._fault("token")) is not None:
                return fault
            self._prove(oauth_client_attestation, oauth_client_attestation_pop)
            form = dict(parse_qsl((await request.body()).decode(), strict_parsing=True))
            shown = client_certificate(request)
            assert shown is not None
            claims = {
                "cnf": {"x5t#S256": certificate_thumbprint(shown)},
                "aud": form["resource"],
                "scope": form["scope"],
            }
            text = sign_jwt(claims, self.key, typ="at+jwt")
            return {"access_token": text, "token_type": "Bearer", "expires_in": 300}

        @router.post("/platform/v1/echo")
        async def echo(request: Request, body: dict[str, Any], authorization: str = Header()) -> dict[str, Any]:
            claims = verify_jwt(authorization.removeprefix("Bearer "), KeySet([self.key.public_key()]), typ="at+jwt")
            shown = client_certificate(request)
            if shown is None or claims["cnf"] != {"x5t#S256": certificate_thumbprint(shown)}:
                raise Forbidden("the token is bound to another certificate")
            await self._hold("echo")
            return {"body": body, "aud": claims["aud"], "scope": claims["scope"]}

        return router

    def _ear(self, node: str, key: Public) -> str:
        expires = datetime.now(UTC) + timedelta(seconds=self.ear_seconds)  # noqa: TID251
        claims = {"sub": node, "exp": int(expires.timestamp()), "cnf": {"jwk": public_jwk(_key(key))}}
        return sign_jwt(claims, self.key, typ="oauth-client-attestation+jwt")

    def _prove(self, ear: str, pop: str) -> tuple[str, dict[str, Any]]:
        claims = verify_jwt(ear, KeySet([self.key.public_key()]), typ="oauth-client-attestation+jwt")
        proof = dict(
            verify_jwt(
                pop, KeySet([_key(self.nodes[claims["sub"]]["node_key"])]), typ="oauth-client-attestation-pop+jwt"
            )
        )
        assert (proof["iss"], proof["aud"], proof["challenge"]) == (claims["sub"], self.url, "p")
        return claims["sub"], proof

    def trust_tpms_of(self, root: x509.Certificate) -> None:
        trusted = TrustStore((load_certificate(root.public_bytes(Encoding.DER), tolerate=False),))
        self._pending["policy"] = EkPolicy(trusted, software_tpms=True)


def _key(public: Public) -> ec.EllipticCurvePublicKey:
    key = public.key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


@pytest.fixture(scope="session")
def server_ca() -> Authority:
    """The CA of the servers of a test."""
    return Authority.create("server CA")


@pytest.fixture
def standin(tmp_path: Path) -> Standin:
    """A platform that is not running yet: `async with standin.running()`."""
    folder = tmp_path / "platform"
    folder.mkdir()
    return Standin(folder)


QUICK = Pace(first=0.05, longest=0.2)


class Scene:
    """A node that was booted and enrolled, and what its agent reported."""

    def __init__(self, standin: Any, tpm: SoftwareTpm, folder: Path) -> None:
        self.standin = standin
        self.device = tpm
        self.state = folder / "state"
        self.log = folder / "log.bin"
        self.image = make_image(folder / "image")
        firmware.boot(tpm, self.image, log=self.log)
        standin.trust_tpms_of(tpm.authority.root)
        self.lines: list[Mapping[str, Any]] = []

    def plan(self, **changed: Any) -> Any:
        given = {
            "ticket": None,
            "node": "kerb-7",
            "url": self.standin.url,
            "ca": self.standin.server_ca.pem,
            "tcti": self.device.tcti,
            "ek_chain": self.device.authority.chain,
        }
        return plan_enrolment(**(given | changed))

    async def with_agent(self, work: Callable[[Agent], Awaitable[None]], **options: Any) -> None:
        if not (self.state / "node.json").exists():
            await enrol(self.plan(), self.state)
        with Tpm(self.device.tcti) as tpm:
            given = {"directory": self.state, "boot_log": self.log, "report": self.lines.append, "pace": QUICK}
            agent = Agent(load_state(self.state), tpm, **(given | options))
            try:
                await work(agent)
            finally:
                await agent.close()

    def play(self, work: Callable[[Agent], Awaitable[None]], **options: Any) -> None:
        async def playing() -> None:
            async with self.standin.running():
                await self.with_agent(work, **options)

        asyncio.run(playing())

    async def until(self, found: Callable[[Mapping[str, Any]], bool]) -> None:
        seen = len(self.lines)
        async with asyncio.timeout(60):
            while not any(found(line) for line in self.lines[seen:]):  # noqa: ASYNC110 - lines come from anywhere
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def shared_tpm() -> Iterator[SoftwareTpm]:
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture
def scene(standin: Any, shared_tpm: SoftwareTpm, tmp_path: Path) -> Scene:
    shared_tpm.power_cycle()
    return Scene(standin, shared_tpm, tmp_path)
