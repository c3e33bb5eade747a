"""The server runner: several listeners in one process, TLS 1.2 or newer, and what the TLS peer proved.

A client certificate is asked for where `client_ca` is given, never demanded: who needs one says so in the application,
which finds the certificate (DER) in `scope["state"]["client_certificate"]`. Whoever uses it looks if it is valid: a
connection lives longer than a handshake, and TLS 1.2 resumes sessions by their names. No tickets for resuming are made:
they cost a fifth of a handshake, and our clients keep their connections.
"""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp
from uvicorn import Config, Server

from umec_core.errors import Unavailable
from umec_core.protocol import Protocol

__all__ = ["Listener", "ListenerBusy", "serve"]

BACKLOG: Final = 1024
KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the interval between two rounds of a node, so that its connection serves the next one too."""

GRACE_SECONDS: Final = 3
"""How long a request may still take once the server stops: a long poll is cut short, a write ends."""


class ListenerBusy(Unavailable):
    """An address to listen at is not free, or not ours."""

    code = "listener-busy"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where an application is served: a TCP address with TLS, or a unix socket (mode 0660) without."""

    app: ASGIApp
    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    """PEM of the CA whose client certificates are shown to the application."""
    unix: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None on a unix socket. A TCP listener without certificate raises ValueError."""
        if self.unix is not None:
            return None
        if self.certificate is None or self.key is None:
            raise ValueError("a TCP listener needs a certificate and its key: there is no plain HTTP here")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cafile=self.client_ca)
        return context

    def bind(self) -> socket.socket:
        """Return the bound socket; raises `ListenerBusy`."""
        try:
            return self._bind_unix(self.unix) if self.unix is not None else self._bind_tcp()
        except OSError as error:
            where = self.unix or f"{self.host}:{self.port}"
            raise ListenerBusy(
                f"cannot listen at {where}: {error.strerror}", advice="is it running already?"
            ) from error

    def _bind_tcp(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)

    def _bind_unix(self, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o117)
        try:
            bound.bind(str(path))
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
        finally:
            os.umask(mask)
        return bound


class _Server(Server):
    """A server that leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(listener: Listener) -> _Server:
    context = listener.tls()
    tls: dict[str, Any] = {} if context is None else {"ssl_context_factory": lambda _config, _default: context}
    config = Config(
        listener.app,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **tls,
    )
    return _Server(config)


async def serve(
    listeners: Sequence[Listener], stop: asyncio.Event, *, sockets: Sequence[socket.socket] | None = None
) -> None:
    """Serve all listeners until `stop` is set, then let requests end (3 s) and return.

    All addresses are bound before the first request is answered; `sockets` gives those that are bound already, in the
    order of the listeners. When one server ends by itself, all end. What is there when serving begins is nothing that
    the garbage collector looks at meanwhile: it stays, and looking takes a tenth of a second each time.
    """
    bound = list(sockets) if sockets is not None else _bind_all(listeners)
    servers = [_server(listener) for listener in listeners]
    pairs = zip(servers, bound, strict=True)
    running = [asyncio.create_task(server.serve(sockets=[opened]), name="listener") for server, opened in pairs]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    gc.freeze()
    try:
        await asyncio.wait([*running, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        gc.unfreeze()
        stopped.cancel()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)


def _bind_all(listeners: Sequence[Listener]) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for listener in listeners:
            bound.append(listener.bind())  # noqa: PERF401 - what is bound has to be closed when the next one fails
    except ListenerBusy:
        for opened in bound:
            opened.close()
        raise
    return bound
