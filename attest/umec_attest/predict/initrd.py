"""The files of an initrd (cpio "newc", plain or gzipped), where the kernel measures them like any others.

With `ima_policy=tcb` the kernel measures nothing of a tmpfs, and the initrd is unpacked into one; unless the command
line has `root=`, or `rootfstype=` without "tmpfs" (init/do_mounts.c, init_rootfs): into a ramfs, which is measured.
"""

import hashlib
import re
import zlib
from collections.abc import Iterator
from typing import Final

from umec_attest.errors import ImageFolderInvalid

__all__ = ["initrd_files", "is_measured"]

MAX_UNPACKED: Final = 1024 * 1024 * 1024
"""Bytes: as much as a section may have."""
MAX_FILES: Final = 100_000

_GZIP: Final = b"\x1f\x8b"
_MAGIC: Final = (b"070701", b"070702")
_HEADER: Final = 110
_FIELDS: Final = 13
_NUMBERS: Final = re.compile(rb"[0-9A-Fa-f]{104}")
_END: Final = b"TRAILER!!!"
_TYPE, _REGULAR = 0o170000, 0o100000


def is_measured(command_line: str) -> bool:
    """Tell whether the kernel unpacks the initrd into a file system that it measures."""
    words = [word.partition("=") for word in command_line.split(" ")]
    named = any(name == "root" and value for name, _, value in words)
    types = [value for name, _, value in words if name == "rootfstype"]
    return named or bool(types and "tmpfs" not in types[-1])


def initrd_files(initrd: bytes) -> dict[str, str]:
    """Return path -> SHA-256 (hex) of every regular file of an initrd. Errors: `ImageFolderInvalid`."""
    files: dict[str, str] = {}
    for name, mode, content in _members(_unpacked(initrd)):
        if mode & _TYPE == _REGULAR:
            files["/" + name.removeprefix("./").lstrip("/").replace(" ", "_")] = hashlib.sha256(content).hexdigest()
        if len(files) > MAX_FILES:
            raise ImageFolderInvalid(f"the initrd has more than {MAX_FILES} files")
    return files


def _unpacked(initrd: bytes) -> bytes:
    if not initrd.startswith(_GZIP):
        return initrd
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = stream.decompress(initrd, MAX_UNPACKED)
    except zlib.error as error:
        raise ImageFolderInvalid(f"the initrd cannot be unpacked: {error}") from None
    if not stream.eof or stream.unused_data.strip(b"\0"):
        raise ImageFolderInvalid(f"the initrd is not one gzipped archive of at most {MAX_UNPACKED} bytes")
    return content


def _members(archive: bytes) -> Iterator[tuple[str, int, memoryview]]:
    """Yield name, mode and content of each member; nothing may follow the last one."""
    view, offset = memoryview(archive), 0
    while True:
        header = archive[offset : offset + _HEADER]
        if header[:6] not in _MAGIC:
            raise ImageFolderInvalid("the initrd is no archive that can be read here (cpio newc, plain or gzip)")
        if not _NUMBERS.fullmatch(header, 6):  # `int` would take signs and spaces, and a negative size leads back
            raise ImageFolderInvalid("the initrd has a member whose header is none")
        fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(_FIELDS)]
        mode, links, size, name_size = fields[1], fields[4], fields[6], fields[11]
        name_at = offset + _HEADER
        start = _aligned(name_at + name_size)
        name = archive[name_at : name_at + max(name_size - 1, 0)]
        if start + size > len(archive):
            raise ImageFolderInvalid("a member of the initrd ends beyond it")
        offset = _aligned(start + size)
        if name == _END:
            break
        if mode & _TYPE == _REGULAR and links > 1:
            raise ImageFolderInvalid("the initrd has hard links: the content of a file may be with another one")
        try:
            yield name.decode(), mode, view[start : start + size]
        except UnicodeDecodeError:
            raise ImageFolderInvalid("the initrd has a name that is not UTF-8") from None
    if archive[offset:].strip(b"\0"):
        raise ImageFolderInvalid("the initrd goes on after its end")


def _aligned(offset: int) -> int:
    return -(-offset // 4) * 4
