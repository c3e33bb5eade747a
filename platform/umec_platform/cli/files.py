"""Files that commands read: bounded, and with a refusal that names them."""

import json
from pathlib import Path
from typing import Any, Final

from umec_core.errors import Invalid

__all__ = ["FileMalformed", "FileUnreadable", "read_file", "read_object"]

MAX_FILE_SIZE: Final = 64 * 1024 * 1024
"""Nothing that a command reads whole is larger."""


class FileUnreadable(Invalid):
    """A file that is not there, may not be read or is too large."""

    code = "file-unreadable"


class FileMalformed(Invalid):
    """A file that holds something else than its kind."""

    code = "file-malformed"


def read_file(path: Path) -> bytes:
    """Return the content of a file; `FileUnreadable` if that is not possible."""
    try:
        if path.stat().st_size > MAX_FILE_SIZE:
            raise FileUnreadable(f"{path} is larger than {MAX_FILE_SIZE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"{path}: {error.strerror}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; `FileUnreadable`, or `FileMalformed` if there is none."""
    try:
        value = json.loads(read_file(path))
    except (ValueError, RecursionError):
        raise FileMalformed(f"{path} is not JSON") from None
    if not isinstance(value, dict):
        raise FileMalformed(f"{path} does not hold a JSON object")
    return value
