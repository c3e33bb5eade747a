"""Where an injected text would show: the kernel's rules, the resolver, containers, processes, the host's /tmp."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from umec_platform.demo.attacks.fields import TRACE
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import StreetNode, inside

__all__ = ["left_behind", "resolver_data"]


def left_behind(run: Run, node: StreetNode, instance: str, address: str) -> str | None:
    """Return "no-trace", or where on a host an injected text has come to.

    An instance that runs there, and its address, have to be seen in the same places: else nobody looked.
    """
    seen = dict(_sights(run, node))
    missing = [name for name, known in {"nftables": address, "runc": instance}.items() if known not in seen[name]]
    if missing:
        raise Broken(f"what runs on {node.name} is not seen in {', '.join(missing)}")
    found = [name for name, text in seen.items() if TRACE in text]
    return ", ".join(found) or "no-trace"


def resolver_data(run: Run, node: StreetNode) -> str:
    """Return the zones and names that the resolver of a host has, as it tells them itself."""
    control = run.state / "netd" / node.name / "unbound" / "control"
    return "".join(_asked(control, what) for what in ("list_local_data", "list_local_zones"))


def _sights(run: Run, node: StreetNode) -> Iterator[tuple[str, str]]:
    state = run.state / "netd" / node.name
    rules = subprocess.run(inside(node.name, ["nft", "list", "ruleset"]), check=True, capture_output=True, text=True)
    yield "nftables", rules.stdout
    yield "unbound", resolver_data(run, node) + (state / "unbound" / "unbound.conf").read_text()
    containers = [*state.glob("instances/*/config.json"), *state.glob("runc/*/state.json")]
    yield "runc", "".join(file.read_text() for file in containers)
    yield "processes", "".join(_command_lines())
    yield "files", " ".join(str(file) for file in Path("/tmp").glob(f"{TRACE}*"))  # noqa: S108 - where payloads write


def _asked(control: Path, what: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(control))
        connection.sendall(f"UBCT1 {what}\n".encode())
        return connection.makefile().read()


def _command_lines() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_text(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
