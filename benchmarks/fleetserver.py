"""The verifier of a simulated fleet as a process of its own: the service, its background work, and its TLS listener.

    python benchmarks/fleetserver.py FOLDER PORT [--database URL] [--any-core]

FOLDER is one that `benchmarks/fleet.py` made. It has one core, and logs errors only. Several may serve one folder at
one port: the kernel spreads the connections. Ended by SIGTERM in good order; after SIGKILL it is started again on the
same folder, as a service manager would.
"""

import argparse
import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import uvloop
from measuring import SERVER, cpu_seconds, pin, resident_mb, unpin

from umec_attest.testing.fleet.verifier import FleetVerifier
from umec_core.clock import system_clock
from umec_core.server import Listener, serve
from umec_core.telemetry import configure_logging
from umec_platform.composition.servercert import ServerCertificate, server_certificate

__all__ = ["ERRORS", "Verifier", "certificate", "management", "verifier"]

ERRORS = 40
"""Refusals are warnings, one a line: they are counted on the other side."""
START_SECONDS = 60.0


def certificate(folder: Path) -> ServerCertificate:
    """Return the certificate of the listener; it is made the first time."""
    return server_certificate(folder / "tls", names=("localhost",), now=system_clock())


def management(port: int) -> str:
    """Return the base URL of the listener."""
    return f"https://localhost:{port}"


def verifier(folder: Path, port: int, database: str | None) -> FleetVerifier:
    """Return the verifier of a folder, which is not opened by that."""
    return FleetVerifier(folder / "verifier", management=management(port), database=database)


class Verifier:
    """The verifier's process, or several on one database that share its port."""

    def __init__(self, folder: Path, database: str | None, processes: int = 1) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.folder = folder
        self.spent = 0.0
        self.peak = 0.0
        self._line = [sys.executable, str(Path(__file__)), str(folder), str(self.port)]
        self._line += [] if database is None else ["--database", database]
        self._line += [] if processes == 1 else ["--any-core"]
        self._wanted = processes
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it; `answers` tells when it is there."""
        self._processes = [subprocess.Popen(self._line, stdin=subprocess.DEVNULL) for _ in range(self._wanted)]

    def end(self, how: signal.Signals) -> None:
        """End it by a signal, and remember what it took."""
        self.spent = self.cpu()
        self.peak = max(self.peak, sum(resident_mb(process.pid, peak=True) for process in self._processes))
        for process in self._processes:
            process.send_signal(how)
        for process in self._processes:
            process.wait()
        self._processes = []

    def cpu(self) -> float:
        """Return the processor's time that it took until now."""
        return self.spent + sum(cpu_seconds(process.pid) for process in self._processes)

    def resident(self) -> float:
        """Return its memory in MB."""
        return sum(resident_mb(process.pid) for process in self._processes)

    async def answers(self, trust: ssl.SSLContext) -> None:
        """Return when it answers; raises RuntimeError when it does not."""
        give_up = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(base_url=f"https://localhost:{self.port}", verify=trust) as client:
            while time.monotonic() < give_up:
                with contextlib.suppress(httpx.HTTPError):
                    (await client.get("/readyz")).raise_for_status()
                    return
                await asyncio.sleep(0.1)
        raise RuntimeError("the verifier does not answer")


async def run(folder: Path, port: int, database: str | None) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    site = verifier(folder, port, database)
    service = await site.open()
    work = asyncio.create_task(service.run())
    try:
        files = certificate(folder)
        bound = socket.create_server(("127.0.0.1", port), backlog=4096, reuse_port=True)
        listener = Listener(site.application(service), certificate=files.certificate, key=files.key)
        await serve([listener], stop, sockets=[bound])
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await service.close()


def main() -> None:
    """Serve on one core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--database")
    parser.add_argument("--any-core", action="store_true", help="use all cores")
    given = parser.parse_args()
    if given.any_core:
        unpin()
    else:
        pin(SERVER)
    configure_logging(json=True, level=ERRORS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(given.folder, given.port, given.database))


if __name__ == "__main__":
    main()
