"""An archive as the kernel unpacks it before anything runs (cpio "newc"), gzipped.

Sorted, owned by root, dated at one moment: the same files give the same bytes.
"""

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Member", "archive"]

FOLDER: Final = 0o040755
FILE: Final = 0o100644
PROGRAM: Final = 0o100755
LINK: Final = 0o120777
DEVICE: Final = 0o020600


@dataclass(frozen=True, slots=True)
class Member:
    """A file, link, folder or character device of the archive; `device` is major and minor number."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(members: Mapping[str, Member], moment: int) -> bytes:
    """Return the gzipped archive; folders that paths need are added. `moment` is in seconds since 1970."""
    whole = {folder: Member(FOLDER) for path in members for folder in _parents(path)} | dict(members)
    out = io.BytesIO()
    for number, path in enumerate(sorted(whole), 1):
        _append(out, path, whole[path], number, moment)
    _append(out, "TRAILER!!!", Member(0), 0, 0)
    out.write(bytes(-out.tell() % 512))
    return gzip.compress(out.getvalue(), compresslevel=9, mtime=0)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _append(out: io.BytesIO, path: str, member: Member, number: int, moment: int) -> None:
    name = path.encode() + b"\0"
    links = 2 if member.mode & 0o170000 == 0o040000 else 1
    fields = (number, member.mode, 0, 0, links, moment, len(member.content), 0, 0, *member.device, len(name), 0)
    out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
    out.write(bytes(-out.tell() % 4))
    out.write(member.content)
    out.write(bytes(-out.tell() % 4))
