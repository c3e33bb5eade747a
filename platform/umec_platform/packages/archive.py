"""An application package: a ZIP archive with `appd.json` in its root, read within limits and never unpacked to disk."""

import io
import zipfile
import zlib
from typing import Final

from umec_platform.errors import PackageInvalid
from umec_platform.packages.appd import MAX_APPD, AppD, parse_appd

__all__ = ["DESCRIPTOR", "read_package"]

DESCRIPTOR: Final = "appd.json"
_MAX_ENTRIES: Final = 1024
"""Files of a package; images are in the registry, not here."""


def read_package(content: bytes) -> AppD:
    """Return the descriptor of a package.

    Raises `PackageInvalid` if the bytes are no archive, hold no or more than one `appd.json`, or if it is encrypted or
    larger than `MAX_APPD` (judged by what comes out, not by what the archive says of itself); `AppdInvalid` for the
    descriptor itself.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return parse_appd(_descriptor(archive))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise PackageInvalid(f"the package is no readable ZIP archive: {type(error).__name__}") from None


def _descriptor(archive: zipfile.ZipFile) -> bytes:
    entries = archive.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise PackageInvalid(f"the package holds more than {_MAX_ENTRIES} files")
    found = [entry for entry in entries if entry.filename == DESCRIPTOR]
    if len(found) != 1:
        raise PackageInvalid(f"the package holds {len(found)} files {DESCRIPTOR}; exactly one is needed")
    with archive.open(found[0]) as file:
        descriptor = file.read(MAX_APPD + 1)
    if len(descriptor) > MAX_APPD:
        raise PackageInvalid(f"{DESCRIPTOR} has more than {MAX_APPD} bytes")
    return descriptor
