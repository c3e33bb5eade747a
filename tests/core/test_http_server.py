"""The HTTP edge and the server: problems, caps, probes, TLS, and the certificate that a client showed."""

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import PlainTextResponse

from umec_core.errors import Conflict, Unavailable
from umec_core.http import client_certificate, create_app, plain_route
from umec_core.server import Listener, ListenerBusy, serve


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    secret: int


class NotReady(Unavailable):
    code = "not-ready"


router = APIRouter()


@router.post("/echo")
async def echo(body: Body) -> dict[str, int]:
    return {"secret": body.secret}


@router.get("/conflict")
async def conflict() -> None:
    raise Conflict("it is so already", advice="do nothing")


@router.get("/broken")
async def broken() -> None:
    raise ZeroDivisionError("an inner word")


@router.get("/who")
async def who(request: Request) -> dict[str, str | None]:
    certificate = client_certificate(request)
    return {"certificate": None if certificate is None else hashlib.sha256(certificate).hexdigest()}


@router.get("/slow")
async def slow() -> dict[str, bool]:
    await asyncio.sleep(0.5)
    return {"done": True}


def ask(body: Callable[[httpx.AsyncClient], Awaitable[None]], app: FastAPI | None = None) -> None:
    async def opened() -> None:
        transport = httpx.ASGITransport(app or create_app("test", [router], max_body=1000))
        async with httpx.AsyncClient(transport=transport, base_url="https://here") as client:
            await body(client)

    asyncio.run(opened())


def test_refusals_are_problems_and_repeat_no_input() -> None:
    async def body(client: httpx.AsyncClient) -> None:
        cases = [
            (await client.get("/conflict"), 409, "conflict"),
            (await client.get("/nowhere"), 404, "not-found"),
            (await client.get("/docs"), 404, "not-found"),
            (await client.get("/openapi.json"), 404, "not-found"),
            (await client.delete("/echo"), 405, "method-not-allowed"),
            (await client.post("/echo", json={"secret": "hunter2"}), 400, "invalid-input"),
            (await client.post("/echo", json={"secret": 1, "more": "hunter2"}), 400, "invalid-input"),
            (await client.post("/echo", content=b'{"secret": hunter2'), 400, "invalid-input"),
            (await client.post("/echo", content=b"[" * 900), 400, "invalid-input"),
            (await client.post("/echo", content=b" " * 1001), 413, "body-too-large"),
            (await client.get("/broken"), 500, "internal-error"),
        ]
        for answer, status, code in cases:
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-request-id"]
            assert "hunter2" not in answer.text
            assert "inner word" not in answer.text
        good = await client.post("/echo", json={"secret": 7})
        assert good.json() == {"secret": 7}
        assert good.headers["x-content-type-options"] == "nosniff"

    ask(body)


def test_a_body_without_length_is_capped_too() -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 100

    async def body(client: httpx.AsyncClient) -> None:
        answer = await client.post("/echo", content=chunks())
        assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")

    ask(body)


def test_probes() -> None:
    state = {"ready": False}

    async def ready() -> None:
        if not state["ready"]:
            raise NotReady("the database does not answer")

    async def body(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json()["code"] == "not-ready"
        state["ready"] = True
        assert (await client.get("/readyz")).status_code == 200
        metrics = (await client.get("/metrics")).text
        assert 'umec_http_requests_total{app="probes",method="GET",route="/readyz",status="503"} 1.0' in metrics

    ask(body, create_app("probes", [], ready=ready, counters=True))


def test_what_was_counted_is_shown_where_that_is_said_and_nowhere_else() -> None:
    async def body(client: httpx.AsyncClient) -> None:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/healthz")).status_code == 200

    ask(body, create_app("tenants", []))


class Authority:
    """A CA and certificates of it, in files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = generate_private_key(SECP256R1())
        self.certificate = self._issue(name, self.key, ca=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path, bytes]:
        key = generate_private_key(SECP256R1())
        certificate = self._issue(name, key, ca=False)
        paths = (self.folder / f"{self.name}-{name}.crt", self.folder / f"{self.name}-{name}.key")
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return *paths, certificate.public_bytes(Encoding.DER)

    def _issue(self, name: str, key: Any, *, ca: bool) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = datetime.now(UTC)  # noqa: TID251 - the TLS library reads the clock of this machine
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        if not ca:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def test_an_endpoint_without_the_framework_answers_its_method_alone() -> None:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    api = APIRouter()
    api.routes.append(plain_route("GET", "/plain", answer))

    async def body(client: httpx.AsyncClient) -> None:
        for method in ("HEAD", "POST", "DELETE"):
            refused = await client.request(method, "/plain")
            assert (refused.status_code, refused.headers.get("allow")) == (405, "GET")
        assert (await client.get("/plain")).text == "here"

    ask(body, create_app("test", [api]))


def served(listener: Listener, body: Callable[[int], Awaitable[None]]) -> None:
    async def opened() -> None:
        stop, bound = asyncio.Event(), listener.bind()
        server = asyncio.create_task(serve([listener], stop, sockets=[bound]))
        port = bound.getsockname()[1] if listener.unix is None else 0
        try:
            await body(port)
        finally:
            stop.set()
            await asyncio.wait_for(server, 10)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `umec serve` runs it
        runner.run(opened())


def context(authority: Authority, identity: tuple[Path, Path, bytes] | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(authority.path))
    if identity is not None:
        made.load_cert_chain(identity[0], identity[1])
    return made


def test_the_application_sees_the_certificate_that_the_peer_proved(authority: Authority, tmp_path: Path) -> None:
    certificate, key, _ = authority.issue("server")
    node = authority.issue("node")
    stranger = Authority(tmp_path, "stranger").issue("node")
    app = create_app("tls", [router])
    listener = Listener(app, host="127.0.0.1", certificate=certificate, key=key, client_ca=authority.path)

    async def body(port: int) -> None:
        url = f"https://localhost:{port}/who"

        async def asked(identity: Any) -> Any:
            async with httpx.AsyncClient(verify=context(authority, identity)) as client:
                headers = {"client_certificate": "forged", "x-client-certificate": "forged"}
                return [(await client.get(url, headers=headers)).json()["certificate"] for _ in range(2)]

        assert await asked(None) == [None, None]
        assert await asked(node) == [hashlib.sha256(node[2]).hexdigest()] * 2
        with pytest.raises(httpx.TransportError):
            await asked(stranger)

    served(listener, body)


def test_old_tls_is_refused(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server")
    for half in ({}, {"certificate": certificate}, {"key": key}):
        with pytest.raises(ValueError, match="no plain HTTP"):
            Listener(create_app("old", []), **half).tls()
    made = Listener(create_app("old", []), certificate=certificate, key=key).tls()
    assert made is not None
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_unix_socket_is_private_and_a_stop_lets_requests_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = Listener(create_app("unix", [router]), unix=path)

    async def body(_port: int) -> None:
        assert path.stat().st_mode & 0o777 == 0o660
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            assert (await client.get("/slow")).json() == {"done": True}

    served(listener, body)


def test_a_taken_address_is_said_before_anything_is_served(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listeners = [
            Listener(create_app("a", []), certificate=certificate, key=key),
            Listener(create_app("b", []), port=port, certificate=certificate, key=key),
        ]
        with pytest.raises(ListenerBusy) as refused:
            asyncio.run(serve(listeners, asyncio.Event()))
    assert refused.value.code == "listener-busy"
