"""`umec netd`, one process for each MEC host of this machine, started again when it ends.

It ends with this process, in whatever way that ends, and leaves nothing behind. A site that starts meanwhile finds the
network namespace taken (`netd-running`) and tries again, as after every end of netd.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_core.child import Child, ChildTimes
from umec_platform.composition.settings import NetdSettings, SiteSettings

__all__ = ["NetdFiles", "NetdProcess"]

TIMES: Final = ChildTimes(stop=15.0, first_pause=0.5, last_pause=30.0)
"""Short pauses first, because rules wait; and time to leave nothing behind."""


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
        line = _command_line(site, host, files, folder)
        self._child = Child(f"netd of {host.node}", lambda: line, times=TIMES)

    async def run(self) -> None:
        """Keep it running until cancelled; then let it clean up."""
        try:
            await self._child.keep()
        finally:
            await self._child.stop()


def _command_line(site: SiteSettings, host: NetdSettings, files: NetdFiles, folder: Path) -> list[str]:
    line = [] if host.namespace is None else ["nsenter", f"--net=/run/netns/{host.namespace}", "--"]
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
    if host.agent is not None:
        options["agent"] = str(host.agent)
    line += [sys.executable, "-m", "umec_platform.cli", "netd"]
    for name, value in options.items():
        line += [f"--{name}", value]
    for port in (site.mp1_port, site.management_port):
        line += ["--service", f"{site.host}:{port}"]
    return line
