"""A built node image on disk, as far as a machine needs it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from umec_images.machine.errors import ImageIncomplete

__all__ = ["NodeImageFolder", "open_folder"]

MAX_JSON: Final = 16 * 1024 * 1024
"""Bytes of a manifest; it names some dozens of files."""


@dataclass(frozen=True, slots=True)
class NodeImageFolder:
    """What is booted, and the firmware that it was built for."""

    name: str
    version: int
    disk: Path
    variables: Path
    firmware: Path


def open_folder(folder: Path) -> NodeImageFolder:
    """Read what `umec nodeimage build` wrote.

    Raises ImageIncomplete: something is missing, or this machine's firmware is not the one the image was built for, so
    that no predicted value would be measured.
    """
    manifest, firmware = _object(folder / "manifest.json"), _object(folder / "firmware.json")
    try:
        name, version = str(manifest["name"]), int(manifest["version"])
        code, expected = Path(str(firmware["code"])), str(firmware["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ImageIncomplete(f"{folder}: manifest.json or firmware.json lacks {error}") from error
    disk, variables = folder / "disk.img", folder / "vars.fd"
    for needed in (disk, variables, code):
        if not needed.is_file():
            raise ImageIncomplete(f"{needed} is not there")
    found = hashlib.sha256(code.read_bytes()).hexdigest()
    if found != expected:
        raise ImageIncomplete(
            f"{code} has SHA-256 {found}, and the image was built for {expected}",
            advice="build the image anew: another firmware measures other values",
        )
    return NodeImageFolder(name, version, disk, variables, code)


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise ImageIncomplete(f"{path} is larger than {MAX_JSON} bytes")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ImageIncomplete(f"{path}: {error.strerror}", advice="umec nodeimage build makes such a folder") from error
    except (ValueError, RecursionError) as error:
        raise ImageIncomplete(f"{path} is not JSON") from error
    if not isinstance(value, dict):
        raise ImageIncomplete(f"{path} holds no JSON object")
    return value
