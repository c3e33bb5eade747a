"""The verifier of a simulated fleet as a process of its own: the service, its background work, and its TLS listener.

    python benchmarks/fleetserver.py FOLDER PORT [--database URL]

FOLDER is one that `benchmarks/fleet.py` made. It has one core, and logs warnings only. Ended by SIGTERM in good order;
after SIGKILL it is started again on the same folder, as a service manager would.
"""

import argparse
import asyncio
import signal
import socket
from pathlib import Path

import uvloop
from measuring import SERVER, pin

from umec_attest.testing.fleet.verifier import FleetVerifier
from umec_core.clock import system_clock
from umec_core.server import Listener, serve
from umec_core.telemetry import configure_logging
from umec_platform.composition.servercert import ServerCertificate, server_certificate

__all__ = ["WARNINGS", "certificate", "management", "verifier"]

WARNINGS = 30


def certificate(folder: Path) -> ServerCertificate:
    """Return the certificate of the listener; it is made the first time."""
    return server_certificate(folder / "tls", names=("localhost",), now=system_clock())


def management(port: int) -> str:
    """Return the base URL of the listener."""
    return f"https://localhost:{port}"


def verifier(folder: Path, port: int, database: str | None) -> FleetVerifier:
    """Return the verifier of a folder, which is not opened by that."""
    return FleetVerifier(folder / "verifier", management=management(port), database=database)


async def run(folder: Path, port: int, database: str | None) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    site = verifier(folder, port, database)
    service = await site.open()
    work = asyncio.create_task(service.run())
    try:
        files = certificate(folder)
        bound = socket.create_server(("127.0.0.1", port), backlog=4096)
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
    given = parser.parse_args()
    pin(SERVER)
    configure_logging(json=True, level=WARNINGS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(given.folder, given.port, given.database))


if __name__ == "__main__":
    main()
