"""Namespaces of its own for a run, so that it needs no ports of the machine and leaves nothing behind.

Network, mount and PID namespaces; for an ordinary user also a user namespace that maps them to root. When the first
process of the PID namespace ends, the kernel kills whatever is left in it, and the namespaces go with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from umec_core.errors import Unavailable

__all__ = ["INSIDE", "SandboxUnavailable", "enter", "prepare"]

INSIDE: Final = "UMEC_DEMO_SANDBOX"
"""Set in the environment of a run that is inside, to the folder that it may write to."""

TOOLS: Final = ("swtpm", "swtpm_setup", "docker-registry", "runc", "unbound", "ip", "unshare", "nsenter", "mount")

MACHINE_TOOLS: Final = ("qemu-system-x86_64", "mksquashfs", "unsquashfs", "depmod")
"""What a run needs besides that boots a machine: scripts/bootstrap --vm."""


class SandboxUnavailable(Unavailable):
    """This machine lacks something that the demo starts."""

    code = "sandbox-unavailable"


def enter(
    arguments: list[str],
    *,
    keep: Path | None = None,
    module: str = "umec_platform.demo",
    tools: Sequence[str] = (),
) -> int:
    """Run a module inside new namespaces and return its exit status; `keep` gets a copy of all files.

    `tools` are programs that it needs besides those of every run.
    """
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [tool for tool in (*TOOLS, *tools) if shutil.which(tool, path=search) is None]
    if missing:
        raise SandboxUnavailable(
            f"missing on this machine: {', '.join(missing)}", advice="have root run scripts/bootstrap"
        )
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
        probe = subprocess.run([*command, "true"], check=False, capture_output=True, text=True)
        if probe.returncode != 0:
            raise SandboxUnavailable(
                f"user namespaces are not available: {probe.stderr.strip()}",
                advice="run it as root, or allow them: sysctl kernel.unprivileged_userns_clone=1",
            )
    with tempfile.TemporaryDirectory(prefix="umec-demo-") as folder:
        environment = {**os.environ, INSIDE: folder, "TMPDIR": folder, "PATH": search}
        command += ["--", sys.executable, "-m", module, *arguments]
        status = subprocess.run(command, check=False, env=environment).returncode
        if keep is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True, ignore=_not_a_file)
        return status


def prepare() -> Path:
    """Inside: bring loopback up, give /run to this run alone, and return its folder."""
    folder = Path(os.environ[INSIDE])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    Path("/run/netns").mkdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return folder


def _not_a_file(folder: str, names: list[str]) -> set[str]:
    """Sockets stay behind."""
    return {name for name in names if (Path(folder) / name).is_socket()}
