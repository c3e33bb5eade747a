"""What may run of a root file system: every regular file of a folder, by its path and its SHA-256."""

import hashlib
import os
from pathlib import Path
from typing import Any, Final, NoReturn

from umec_attest.errors import ImageFolderInvalid

__all__ = ["predict_runtime"]

MAX_FILES: Final = 200_000
"""A whole distribution has some 60,000 that a kernel measures."""


def predict_runtime(root: Path) -> dict[str, Any]:
    """Return the runtime policy (JSON) that lists every regular file below `root`, as it will lie below "/".

    Links are not followed: the kernel measures the file that they lead to. A path with a blank is listed with an
    underscore, which is what Linux measures for it. Errors: `ImageFolderInvalid`.
    """
    files: dict[str, list[str]] = {}
    for folder, folders, names in os.walk(root, onerror=_unreadable):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                continue
            measured = "/" + path.relative_to(root).as_posix().replace(" ", "_")
            files.setdefault(measured, []).append(_digest(path))
            if len(files) > MAX_FILES:
                raise ImageFolderInvalid(f"{root} has more than {MAX_FILES} files")
    if not files:
        raise ImageFolderInvalid(f"{root} has no file: nothing could run")
    return {"files": files}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        _unreadable(error)


def _unreadable(error: OSError) -> NoReturn:
    raise ImageFolderInvalid(f"{error.filename} cannot be read: {error.strerror}") from None
