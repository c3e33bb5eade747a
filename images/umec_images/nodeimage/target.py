"""The folder that becomes an image: nothing but an older image is ever replaced."""

import json
from pathlib import Path
from typing import Final

from umec_images.nodeimage.errors import TargetTaken

__all__ = ["MANIFEST", "check_target", "put_in_place"]

MANIFEST: Final = "manifest.json"
_MEMBERS: Final = frozenset({"name", "root_hash", "files"})


def check_target(target: Path) -> None:
    """Return if nothing is there, or an image with no file that its manifest does not name. Raises TargetTaken."""
    if not target.exists():
        return
    advice = "give a folder that is not there yet"
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        manifest = None
    if not (isinstance(manifest, dict) and manifest.keys() >= _MEMBERS and isinstance(manifest["files"], dict)):
        raise TargetTaken(f"{target} is there, and is no image", advice=advice)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink() or path.is_file()}
    others = sorted(found - manifest["files"].keys() - {MANIFEST})
    if others:
        raise TargetTaken(f"{target} has {', '.join(others[:8])} beside an image", advice=advice)


def put_in_place(made: Path, target: Path, aside: Path) -> None:
    """Put a finished folder in its place; what is there goes `aside` before, on the same file system."""
    if target.exists():
        check_target(target)  # again: a build takes minutes
        target.rename(aside)
    made.rename(target)
