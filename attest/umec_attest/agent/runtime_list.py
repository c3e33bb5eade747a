"""The kernel's list of what ran since the boot (IMA, binary form), read from an entry on.

    u32 PCR, 20 bytes template hash, size and name of the template, size and data of the template (all little-endian)

The list only grows within a boot. Nothing of it is kept in memory: the verifier says where it stopped.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from umec_attest.agent.errors import AgentStateInvalid

__all__ = ["MAX_RUNTIME_LIST", "RUNTIME_LIST", "read_runtime_list"]

RUNTIME_LIST: Final = Path("/sys/kernel/security/ima/binary_runtime_measurements")
MAX_RUNTIME_LIST: Final = 640 * 1024
"""Bytes of one part, some 4,500 entries: one body takes them beside a boot log of 104 KB, less beside a larger."""
MAX_ENTRY: Final = 1024 * 1024
"""No template has more than nine fields of 64 KB."""

_PIECE: Final = 64 * 1024
_SIZE: Final = struct.Struct("<I")
_NAME_AT: Final = 24
_LEGACY: Final = b"ima"
_LEGACY_DIGEST: Final = 20
"""The template "ima" has a digest of this size where others have the size of their data."""


def read_runtime_list(path: Path, start: int, *, most: int = MAX_RUNTIME_LIST) -> tuple[bytes, bool]:
    """Return the whole entries from number `start` (0 is the first) on, at most `most` bytes, and whether more follow.

    Raises AgentStateInvalid where the list cannot be read.
    """
    found: list[bytes] = []
    size = 0
    try:
        with path.open("rb", buffering=0) as file:
            for number, entry in enumerate(_entries(file)):
                if number < start:
                    continue
                size += len(entry)
                if size > most:
                    return b"".join(found), True
                found.append(entry)
    except OSError as error:
        raise AgentStateInvalid(
            f"the list of runtime measurements {path} cannot be read: {error.strerror}", advice="--runtime-list"
        ) from error
    return b"".join(found), False


def _entries(file: BinaryIO) -> Iterator[bytes]:
    """Yield whole entries; what is cut at the end is still being written."""
    data = b""
    while piece := file.read(_PIECE):
        data += piece
        start = 0
        while (end := _end(data, start)) is not None:
            yield data[start:end]
            start = end
        data = data[start:]
        if len(data) > MAX_ENTRY:
            raise AgentStateInvalid("this is no list of runtime measurements in binary form")


def _end(data: bytes, start: int) -> int | None:
    """Return where the entry at `start` ends, None where that is not there yet."""
    at = start + _NAME_AT
    for _ in range(2):
        if len(data) < at + _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size + size
        if data[at - size : at] == _LEGACY:
            at += _LEGACY_DIGEST
    return at if at <= len(data) else None
