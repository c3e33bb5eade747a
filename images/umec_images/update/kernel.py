"""What a unified kernel image says of itself in its signed sections: which image it is, and which root it opens."""

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from umec_images.nodeimage.pe import read_headers, read_sections
from umec_images.update.errors import DiskUnfit

__all__ = ["Kernel", "command_line_root", "read_kernel"]

MAX_SECTIONS: Final = 96
"""The most that a PE loader takes."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,63}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_VERITY: Final = re.compile(r"([1-9][0-9]{0,9}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image: name and version of the node image that it belongs to, and its root file system."""

    name: str
    version: int
    root_hash: bytes
    blocks: int
    """Of 4096 bytes, of data; the label and the hash tree follow them."""
    salt: bytes
    sha256: str

    @property
    def label(self) -> bytes:
        """The 16 bytes by which its initrd finds the slot."""
        return self.root_hash[:16]


def read_kernel(image: bytes) -> Kernel:
    """Read a kernel image. Raises DiskUnfit: it is none that `umec nodeimage build` made for updates."""
    try:
        parts = {name: data for name, data in _sections(image) if name in {".osrel", ".cmdline"}}
        release = dict(line.split("=", 1) for line in parts[".osrel"].decode().splitlines() if "=" in line)
        words = _words(parts[".cmdline"].decode())
        verity = _matched(_VERITY, words["umec.verity"])
        return Kernel(
            name=_matched(_NAME, release["IMAGE_ID"])[0],
            version=int(_matched(_NUMBER, words["umec.version"])[0]),
            root_hash=bytes.fromhex(_matched(_HASH, words["roothash"])[0]),
            blocks=int(verity[1]),
            salt=bytes.fromhex(verity[2]),
            sha256=hashlib.sha256(image).hexdigest(),
        )
    except (struct.error, ValueError) as error:
        raise DiskUnfit(f"this is no kernel image of a node: {error}") from error
    except KeyError as error:
        raise DiskUnfit(f"the kernel image does not say {error.args[0]}") from error


def command_line_root(text: str) -> bytes:
    """Return the root hash of what runs, by its command line (/proc/cmdline). Raises DiskUnfit."""
    try:
        return bytes.fromhex(_matched(_HASH, _words(text)["roothash"])[0])
    except (KeyError, ValueError) as error:
        raise DiskUnfit("the command line of what runs names no root file system") from error


def _words(text: str) -> dict[str, str]:
    pairs = [word.split("=", 1) for word in text.rstrip("\0").split() if "=" in word]
    names = [name for name, _ in pairs]
    for name in ("roothash", "umec.verity", "umec.version"):
        if names.count(name) > 1:
            raise ValueError(f"it says {name} twice")
    return {pair[0]: pair[1] for pair in pairs}


def _matched(pattern: re.Pattern[str], value: str) -> re.Match[str]:
    found = pattern.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is not what it has to be")
    return found


def _sections(image: bytes) -> Iterator[tuple[str, bytes]]:
    headers = read_headers(image)
    if image[headers.start : headers.start + 4] != b"PE\0\0":
        raise ValueError("it is no PE image")
    if headers.count > MAX_SECTIONS:
        raise ValueError(f"it has {headers.count} sections")
    seen = set[str]()
    for section in read_sections(image, headers):
        name = section.name.decode("ascii")
        if name in seen:
            raise ValueError(f"it has two sections {name}")
        seen.add(name)
        yield name, image[section.raw : section.raw + min(section.size, section.raw_size)]
