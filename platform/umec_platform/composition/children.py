"""`umec netd`, one process for each MEC host of this machine, started again when it ends.

The kernel tells it to end when this process ends, in whatever way, and it leaves nothing behind. A site that starts
meanwhile finds the network namespace taken (`netd-running`) and tries again, as after every end of netd.
"""

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from umec_platform.composition.settings import NetdSettings, SiteSettings

__all__ = ["NetdFiles", "NetdProcess"]

FIRST_PAUSE: Final = 0.5
LAST_PAUSE: Final = 30.0
"""Seconds before the next attempt: short first, because rules wait; longer when it keeps failing."""
GRACE_SECONDS: Final = 15.0
"""How long netd may take to leave nothing behind."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NetdFiles:
    """Whose statements and decisions netd believes: key sets (JWKS) in files."""

    verifier: Path
    decisions: Path


class NetdProcess:
    """One netd as a child process, in the network namespace of its host."""

    def __init__(self, site: SiteSettings, host: NetdSettings, files: NetdFiles) -> None:
        folder = site.state / "netd" / host.node
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._host = host
        self._line = _command_line(site, host, files, folder)

    async def run(self) -> None:
        """Keep it running until cancelled; then let it clean up."""
        pause = FIRST_PAUSE / 2
        while True:
            process = await asyncio.create_subprocess_exec(*self._line, stdin=asyncio.subprocess.DEVNULL)
            started = asyncio.get_running_loop().time()
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await _stop(process)
                raise
            lasted = asyncio.get_running_loop().time() - started
            pause = FIRST_PAUSE if lasted > LAST_PAUSE else min(2 * pause, LAST_PAUSE)
            _log.error("netd ended", node=self._host.node, status=status, retry_seconds=pause)
            await asyncio.sleep(pause)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), GRACE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _command_line(site: SiteSettings, host: NetdSettings, files: NetdFiles, folder: Path) -> list[str]:
    line = ["setpriv", "--pdeathsig", "TERM", "--"]
    if host.namespace is not None:
        line += ["nsenter", f"--net=/run/netns/{host.namespace}", "--"]
    options = {
        "node": host.node,
        "socket": str(folder / "netd.sock"),
        "state": str(folder),
        "verifier-jwks": str(files.verifier),
        "verifier-issuer": f"{site.management}/attest/v1",
        "decision-jwks": str(files.decisions),
        "decision-issuer": f"{site.management}/platform/v1",
        "access": host.access,
        "access-address": host.access_address,
        "allow-uid": str(os.geteuid()),
        "pool": host.pool,
        "lease-seconds": str(site.platform.lease_seconds),
    }
    line += [sys.executable, "-m", "umec_platform.cli", "netd"]
    for name, value in options.items():
        line += [f"--{name}", value]
    for port in (site.mp1_port, site.management_port):
        line += ["--service", f"{site.host}:{port}"]
    return line
