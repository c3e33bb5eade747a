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
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fastapi import APIRouter, Header, Request

from umec_attest.certificates import TrustStore, load_certificate
from umec_attest.credential import make_credential
from umec_attest.digests import parse_pcr_values
from umec_attest.ek_certificate import EkPolicy
from umec_attest.enrolment import check_ak, check_ek, verify_certify
from umec_attest.quote import verify_quote
from umec_attest.testing.node import DEFAULT_PCRS
from umec_attest.testing.plugin import software_node, software_tpm
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import Public, parse_public
from umec_core.errors import Forbidden, UmecError
from umec_core.http import client_certificate, create_app
from umec_core.jose import KeySet, public_jwk, sign_jwt, verify_jwt
from umec_core.keys import private_pem
from umec_core.server import Listener, serve
from umec_core.tokens import certificate_thumbprint

__all__ = ["server_ca", "software_node", "software_tpm", "standin"]

NAME = "127.0.0.1"


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
    """A platform at an address that stays; `faults` are answers (exceptions) for the next requests of a path."""

    folder: Path
    port: int = 0
    server_ca: Authority = field(default_factory=lambda: Authority.create("server CA"))
    node_ca: Authority = field(default_factory=lambda: Authority.create("node CA"))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    faults: dict[str, list[UmecError | dict[str, Any]]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Public]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    verdict: str = "affirming"
    generation: int = 1
    boot_log: str = "full"
    evidence: list[dict[str, Any]] = field(default_factory=list)
    round_seconds: float = 0.3
    certificate_seconds: float = 300.0
    ear: str | None = None
    ear_seconds: float = 300.0
    hold: asyncio.Event | None = None
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
            self._pending["1"] = (body["node"], ek, ak, node_key, secret)
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
            return {"node": node, "standing": "pending", "approved": True}

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
            good = self.verdict == "affirming"
            return {
                "verdict": self.verdict,
                "standing": "trusted" if good else "untrusted",
                "generation": self.generation,
                "findings": [] if good else [{"id": "pcr-4-unexpected", "detail": "another kernel"}],
                "trust_vector": {},
                "ear": (self.ear or self._ear(body["node"], known["node_key"])) if good else None,
            }

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
            if self.hold is not None:
                await self.hold.wait()
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
