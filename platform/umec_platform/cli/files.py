"""Files that commands read: bounded, and with a refusal that names them."""

from pathlib import Path
from typing import Final

from umec_core.errors import Invalid

__all__ = ["FileUnreadable", "read_file"]

MAX_FILE_SIZE: Final = 64 * 1024 * 1024
"""Nothing that a command reads whole is larger."""


class FileUnreadable(Invalid):
    """A file that is not there, may not be read or is too large."""

    code = "file-unreadable"


def read_file(path: Path) -> bytes:
    """Return the content of a file; `FileUnreadable` if that is not possible."""
    try:
        if path.stat().st_size > MAX_FILE_SIZE:
            raise FileUnreadable(f"{path} is larger than {MAX_FILE_SIZE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"{path}: {error.strerror}") from None
