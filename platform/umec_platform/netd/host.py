"""What this host lets netd do: real root or root of a user namespace, with control groups or without."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["HostFacts", "look", "remove_cgroup"]

_CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """`mapped`: root within a user namespace of one user only. `cgroups`: memory and processes can be limited."""

    mapped: bool
    cgroups: bool


def look() -> HostFacts:
    """Look at this process and its mounts."""
    mapped = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    return HostFacts(mapped=mapped, cgroups=not mapped and _cgroups())


def _cgroups() -> bool:
    unified = _CGROUPS / "cgroup.controllers"
    if unified.exists():
        return {"memory", "pids"} <= set(unified.read_text().split()) and os.access(_CGROUPS, os.W_OK)
    return all(
        (_CGROUPS / name / "cgroup.procs").exists() and os.access(_CGROUPS / name, os.W_OK)
        for name in ("memory", "pids", "devices")
    )


def remove_cgroup(path: str) -> None:
    """Remove an empty control group of ours from every hierarchy."""
    for folder in [_CGROUPS / path[1:], *_CGROUPS.glob(f"*/{path[1:]}")]:
        with contextlib.suppress(OSError):
            folder.rmdir()
