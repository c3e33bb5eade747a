"""A whole site on its real listeners, a client that can say anything, and everything that the site logs meanwhile."""

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from fastapi.routing import iter_route_contexts

from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.jose import sign_jwt, thumbprint
from umec_core.keys import load_key
from umec_core.server import serve
from umec_platform.composition.compose import open_site
from umec_platform.composition.settings import SiteSettings

PATIENCE = 10.0
"""Seconds in which every answer has to come on a busy machine; what takes longer is taken for a hang."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """Our code, in whichever of the three forms of errors."""
        said = self.document
        if "errors" in said:
            return str(said["errors"][0]["detail"]["code"])
        return said.get("code")


class Connection:
    """One TLS connection on which anything can be sent."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self._pending = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()

    def ended(self) -> bool:
        """Whether the server closes the connection, and says nothing more."""
        try:
            return self._pending + self.socket.recv(65536) == b""
        except (ConnectionError, ssl.SSLError):
            return True

    def read(self, method: str = "GET") -> Answer:
        """Return the next answer; EOFError where the server closes the connection instead."""
        while b"\r\n\r\n" not in self._pending:
            self._more()
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        status = int(lines[0].split(" ")[1])
        if status == 100:
            return self.read(method)
        if method == "HEAD" or status in {204, 304}:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._chunked())
        return Answer(status, headers, self._take(int(headers["content-length"])))

    def _chunked(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._pending:
                self._more()
            size, _, self._pending = self._pending.partition(b"\r\n")
            piece = self._take(int(size, 16) + 2)[:-2]
            if not piece:
                return body
            body += piece

    def _take(self, size: int) -> bytes:
        while len(self._pending) < size:
            self._more()
        taken, self._pending = self._pending[:size], self._pending[size:]
        return taken

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise EOFError(self._pending)
        self._pending += piece


@dataclass
class Logged:
    """Log lines of this process, of structlog and of the libraries."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def take(self) -> list[dict[str, Any]]:
        taken, self.lines = self.lines, []
        return taken


class _Handler(logging.Handler):
    def __init__(self, logged: Logged) -> None:
        super().__init__(logging.WARNING)
        self._logged = logged

    def emit(self, record: logging.LogRecord) -> None:
        line = {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
        self._logged.lines.append(line | ({"exc_info": True} if record.exc_info else {}))


@pytest.fixture(scope="session")
def logged() -> Iterator[Logged]:
    """Everything that is logged from now on."""
    kept = Logged()

    def keep(_logger: Any, level: str, line: dict[str, Any]) -> dict[str, Any]:
        kept.lines.append({**line, "level": level})
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep], cache_logger_on_first_use=False)
    handler = _Handler(kept)
    logging.getLogger().addHandler(handler)
    yield kept
    logging.getLogger().removeHandler(handler)
    structlog.reset_defaults()


@dataclass
class Served:
    """A site that is served, and the tokens that its authorization server would give."""

    settings: SiteSettings
    apps: Mapping[str, Any]
    token_key: EllipticCurvePrivateKey
    logged: Logged
    offset: timedelta = timedelta()
    client_key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    connections: dict[str, Connection] = field(default_factory=dict)
    tokens: dict[tuple[Any, ...], tuple[datetime, str]] = field(default_factory=dict)

    def clock(self) -> datetime:
        return system_clock() + self.offset

    def url(self, listener: str) -> str:
        return str(getattr(self.settings, listener))

    def connect(self, listener: str) -> Connection:
        port = getattr(self.settings, f"{listener}_port")
        return Connection(port, ssl.create_default_context(cafile=str(self.settings.state / "server-ca.pem")))

    def routes(self) -> set[tuple[str, str, str]]:
        """Every (listener, method, path) that the applications serve, as they know it themselves."""
        found = set()
        for listener, app in self.apps.items():
            inner = [app] if hasattr(app, "routes") else [app.registry._app, app.other]
            for context in (context for one in inner for context in iter_route_contexts(one.routes)):
                methods = set(context.methods or ())
                if listener != "registry":  # elsewhere HEAD is of Starlette's making, where there is GET: refused
                    methods.discard("HEAD")
                found |= {(listener, method, context.path) for method in methods}
        return found

    def token(self, audience: str, scope: str, **claims: Any) -> str:
        """Return a token for this client, made some time ago at most."""
        asked = (audience, scope, *claims.items())
        made_at, token = self.tokens.get(asked, (self.clock() - timedelta(days=1), ""))
        if self.clock() - made_at > timedelta(seconds=200):
            made_at, token = self.clock(), self._token(audience, scope, claims)
            self.tokens[asked] = made_at, token
        return token

    def _token(self, audience: str, scope: str, claims: Mapping[str, Any]) -> str:
        at = int(self.clock().timestamp())
        known = {
            "iss": self.settings.management,
            "sub": "edge",
            "client_id": "edge",
            "aud": audience,
            "scope": scope,
            "iat": at,
            "exp": at + 300,
            "jti": "j",
            "cnf": {"jkt": thumbprint(self.client_key)},
            **claims,
        }
        return sign_jwt(known, self.token_key, typ="at+jwt")

    def credentials(self, method: str, url: str, token: str) -> list[tuple[bytes, bytes]]:
        proof = make_proof(self.client_key, method, url, now=self.clock(), access_token=token)
        return [(b"Authorization", f"DPoP {token}".encode()), (b"DPoP", proof.encode())]

    def ask(
        self, listener: str, method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Answer:
        """Send one request on the listener's one connection and return the answer: it stays usable, or this fails."""
        self.offset += timedelta(milliseconds=20)  # nobody is refused for asking too often
        if listener not in self.connections:
            self.connections[listener] = self.connect(listener)
        connection = self.connections[listener]
        lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: localhost"]
        lines += [name + b": " + value for name, value in headers]
        try:
            connection.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            answer = connection.read(method)
        except (OSError, EOFError):
            del self.connections[listener]
            raise
        if answer.headers.get("connection") == "close":
            self.connections.pop(listener).close()
        return answer


@pytest.fixture(scope="session")
def site(logged: Logged) -> Iterator[Served]:
    """A site on loopback, in a thread of its own; what runs beside its listeners is left out."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        bound = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = dict(
            zip(("management_port", "mp1_port", "registry_port"), (one.getsockname()[1] for one in bound), strict=True)
        )
        settings = SiteSettings.model_validate({"state": folder / "state", **ports})
        thread = _Serving(settings, bound, logged)
        thread.start()
        stack.callback(thread.end)
        yield thread.served()


class _Serving(threading.Thread):
    def __init__(self, settings: SiteSettings, bound: list[socket.socket], logged: Logged) -> None:
        super().__init__()
        self._settings, self._bound, self._logged = settings, bound, logged
        self._opened, self._served, self._fault = threading.Event(), None, None

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except Exception as error:  # noqa: BLE001 - told where the thread is waited for
            self._fault = error
        finally:
            self._opened.set()

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with open_site(self._settings, lambda: self._served.clock() if self._served else system_clock()) as site:
            ring = self._settings.state / "identity" / "token-keys"
            key = load_key(ring / json.loads((ring / "ring.json").read_text())[0]["file"])
            apps = dict(zip(("management", "mp1", "registry"), (one.app for one in site.listeners), strict=True))
            self._served = Served(self._settings, apps, key, self._logged)
            self._opened.set()
            await serve(site.listeners, self._stopping, sockets=self._bound)

    def served(self) -> Served:
        self._opened.wait()
        if self._served is None:
            raise RuntimeError("the site does not open") from self._fault
        return self._served

    def end(self) -> None:
        if self._served is not None:
            for connection in self._served.connections.values():
                connection.close()
            self._loop.call_soon_threadsafe(self._stopping.set)
        self.join()
        if self._fault is not None:
            raise self._fault
