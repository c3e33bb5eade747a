"""A server in a process and on a core of its own, and whole HTTP requests sent to it from another core."""

import asyncio
import contextlib
import cProfile
import multiprocessing
import signal
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
import uvloop
from measuring import LOAD, SERVER, cpu_seconds, pin, resident_mb
from starlette.types import ASGIApp

from umec_core.clock import system_clock
from umec_core.server import Listener
from umec_core.server import serve as serve_tls
from umec_core.telemetry import configure_logging
from umec_platform.composition.servercert import ServerCertificate, server_certificate

__all__ = ["CONNECTIONS", "Opens", "Served", "serving"]

CONNECTIONS = 64
START_SECONDS = 60.0
LONGEST_ANSWER = 2**20

T = TypeVar("T")

Opens = Callable[[int], AbstractAsyncContextManager[ASGIApp]]
"""Opens what is to be served at a port; called in the server's process."""


@dataclass(frozen=True)
class Served:
    """A running server, and the load on it."""

    pid: int
    port: int
    trust: ssl.SSLContext | None

    def send(
        self, requests: Sequence[bytes], *, holds: bytes, status: int = 200, connections: int = CONNECTIONS
    ) -> float:
        """Send every request once over keep-alive connections and return answers a second.

        An answer of another status, or without those bytes, raises RuntimeError.
        """

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while queue:
                body = await _exchange(reader, writer, queue.pop(), status)
                if holds not in body:
                    raise RuntimeError(body.decode())
            writer.close()

        async def all_of_them() -> float:
            streams = [await self._connect() for _ in range(connections)]
            began = time.perf_counter()
            await asyncio.gather(*(one(*stream) for stream in streams))
            return time.perf_counter() - began

        queue, total = list(requests), len(requests)
        return total / _run_here(all_of_them)

    def ask(self, request: bytes) -> bytes:
        """Send one request and return the body of its answer."""

        async def exchange() -> bytes:
            reader, writer = await self._connect()
            return await _exchange(reader, writer, request, 200)

        return _run_here(exchange)

    def timed(self, requests: Sequence[bytes]) -> list[float]:
        """Send requests one after the other over one connection; return the seconds until each answer."""

        async def one_by_one() -> list[float]:
            reader, writer = await self._connect()
            spent = []
            for request in requests:
                began = time.perf_counter()
                await _exchange(reader, writer, request, 200)
                spent.append(time.perf_counter() - began)
            return spent

        return _run_here(one_by_one)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = None if self.trust is None else "localhost"
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust, server_hostname=name, limit=LONGEST_ANSWER
        )

    def rates(
        self, make: Callable[[int], Sequence[bytes]], *, holds: bytes, seconds: float, repeats: int
    ) -> tuple[list[float], float]:
        """Return answers a second in several series after a warm-up, and answers for a CPU second of the server."""
        warm = self.send(make(100), holds=holds)
        count = max(100, int(seconds * self.send(make(int(warm / 2) + 1), holds=holds)))
        rates, spent = [], 0.0
        for _ in range(repeats):
            asked = make(count)
            before = cpu_seconds(self.pid)
            rates.append(self.send(asked, holds=holds))
            spent += cpu_seconds(self.pid) - before
        return rates, repeats * count / spent

    def peak_mb(self) -> float:
        """Return the peak memory of the server."""
        return resident_mb(self.pid, peak=True)


def _run_here(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, status: int) -> bytes:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if f" {status} ".encode() not in head.split(b"\r\n")[0]:
        raise RuntimeError(body.decode())
    return body


@contextlib.contextmanager
def serving(opens: Opens, *, tls: Path | None, profile: str | None = None) -> Iterator[Served]:
    """Serve an application: over TLS, with a certificate that is made in the folder `tls`, or in the clear.

    From here on this process has the other core. `profile` is the file for a cProfile of the server.
    """
    certificate = None if tls is None else server_certificate(tls, names=("localhost",), now=system_clock())
    bound = socket.create_server(("127.0.0.1", 0), backlog=1024)
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(opens, bound, certificate, profile))
    process.start()
    pin(LOAD)
    try:
        trust = None if certificate is None else ssl.create_default_context(cafile=str(certificate.ca))
        served = Served(process.pid or 0, bound.getsockname()[1], trust)
        _wait_for(served, process)
        yield served
    finally:
        process.terminate()
        process.join()
        bound.close()


def _wait_for(served: Served, process: multiprocessing.context.ForkProcess) -> None:
    """Return when the server answers: the listening socket alone is there before it."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    give_up = time.monotonic() + START_SECONDS
    while process.is_alive() and time.monotonic() < give_up:
        with contextlib.suppress(OSError, EOFError):
            served.send([request], holds=b"ok", connections=1)
            return
        time.sleep(0.05)
    raise RuntimeError("the server does not answer")


def _serve(opens: Opens, bound: socket.socket, certificate: ServerCertificate | None, profile: str | None) -> None:
    pin(SERVER)
    configure_logging(json=True, level=30)
    profiler = cProfile.Profile()
    if profile is not None:
        profiler.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(opens, bound, certificate))
    if profile is not None:
        profiler.disable()
        profiler.dump_stats(profile)


async def _run(opens: Opens, bound: socket.socket, certificate: ServerCertificate | None) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with opens(bound.getsockname()[1]) as app:
        if certificate is not None:
            listener = Listener(app, certificate=certificate.certificate, key=certificate.key)
            await serve_tls([listener], stop, sockets=[bound])
            return
        server = _Plain(uvicorn.Config(app, log_config=None, access_log=False, http="httptools", lifespan="off"))
        running = asyncio.create_task(server.serve(sockets=[bound]))
        await stop.wait()
        server.should_exit = True
        await running


class _Plain(uvicorn.Server):
    """A server that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
