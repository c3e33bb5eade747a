"""What the agent is told of the update: one JSON object in a file that root writes.

{"image", "running": {"version", "kernel"}, "confirmed": {"version", "kernel"}, "phase",
 "update": {"version", "manifest", "attempt"} | null, "code": … | null, "detail"}

`kernel` is the SHA-256 (hex) of a kernel image: whoever wants to know whether an image is this very one compares it.
"""

import json
from pathlib import Path
from typing import Any

from umec_core.errors import UmecError
from umec_images.update.disk import Survey
from umec_images.update.kernel import Kernel
from umec_images.update.state import Phase

__all__ = ["FELL_BACK", "describe", "describe_trouble", "write_status"]

FELL_BACK = "update-fell-back"
"""The trial did not come up: a panic, a hang that ended, a refusal of the firmware, or a power cut."""


def describe(seen: Survey, running: bytes) -> dict[str, Any]:
    """Return what there is to say of a disk, for a node on which this root hash runs."""
    record = seen.record
    runs = seen.other if seen.other is not None and running == seen.other.root_hash else seen.confirmed
    failed = record.phase is Phase.FAILED
    update = {"version": record.version, "manifest": record.manifest, "attempt": record.attempt}
    return {
        "image": seen.confirmed.name,
        "running": _shown(runs),
        "confirmed": _shown(seen.confirmed),
        "phase": record.phase.value,
        "update": update if record.manifest else None,
        "code": (record.why or FELL_BACK) if failed else None,
        "detail": f"version {record.version} was tried, and version {runs.version} came back" if failed else "",
    }


def describe_trouble(error: UmecError) -> dict[str, Any]:
    """Return what there is to say where the disk is not one of a node."""
    nothing = {"image": None, "running": None, "confirmed": None, "phase": None, "update": None}
    return nothing | {"code": error.code, "detail": error.detail}


def write_status(path: Path, status: dict[str, Any]) -> None:
    """Write it for everybody to read: all of it, or what was there before."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(status) + "\n")
    draft.chmod(0o644)
    draft.replace(path)


def _shown(kernel: Kernel) -> dict[str, Any]:
    return {"version": kernel.version, "kernel": kernel.sha256}
