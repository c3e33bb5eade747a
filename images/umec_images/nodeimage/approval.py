"""The approval of an image: a file that its owner signed after the build, which goes onto the disk with its root.

It lies in the folder as `approval`, and in a slot in the last 16 KiB (`APPROVAL_AREA`), behind root file system and
hash tree, where the first programs of a node find it (`guest/approval.sh`). It is not measured, and what is in it only
the node's agent and TPM judge. As a file of the image it is in `manifest.json`, which gets another digest by it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from umec_images.machine.partitions import spans, write_span
from umec_images.nodeimage.disk import APPROVAL_AREA, approval_area
from umec_images.nodeimage.errors import DiskTooSmall, PapersInvalid
from umec_images.nodeimage.papers import APPROVAL, PAPERS

__all__ = ["place_approval"]

DISK: Final = "disk.img"
ROOT: Final = "root.img"
SLOT: Final = "root-a"
"""Where a build puts the root file system."""


def place_approval(folder: Path, approval: bytes) -> None:
    """Put an approval into a built image: into its folder, its disk if that is there, and its manifest.

    Raises ContentRefused, DiskTooSmall, PapersInvalid, and what reading the disk raises.
    """
    area, disk = approval_area(approval), folder / DISK
    manifest = _manifest(folder)
    changed = {APPROVAL: _described(approval)}
    if disk.exists():
        slot = spans(disk)[SLOT]
        if (folder / ROOT).stat().st_size > slot.size - APPROVAL_AREA:
            raise DiskTooSmall("the slot has no room for an approval behind root.img", advice="build it with --owner")
        write_span(disk, slot, slot.size - APPROVAL_AREA, area)
        changed[DISK] = _of_file(disk)
    (folder / APPROVAL).write_bytes(approval)
    manifest["files"] = dict(sorted((manifest["files"] | changed).items()))
    fresh = folder / f".{PAPERS}.new"
    fresh.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder / PAPERS)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / PAPERS).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PapersInvalid(f"{folder} has no {PAPERS}", advice="umec nodeimage build makes such a folder") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise PapersInvalid(f"{folder / PAPERS} names no files")
    return manifest


def _described(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _of_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}
