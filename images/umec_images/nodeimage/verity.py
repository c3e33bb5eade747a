"""dm-verity: the hash tree over a root file system, as the kernel's `verity` target reads it (format 1, SHA-256).

The image is followed by a superblock as cryptsetup's `veritysetup` writes it, and by the tree, topmost level first.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["BLOCK", "Verity", "append_tree", "hash_tree", "root_hash_of"]

BLOCK: Final = 4096
"""Bytes of a block of data and of one of hashes."""
SALT: Final = 32
_SUPERBLOCK: Final = struct.Struct("<8sII16s32sIIQH6x256s168x")


@dataclass(frozen=True, slots=True)
class Verity:
    """What opens the device: the root hash is the only thing that must be trusted."""

    root_hash: bytes
    salt: bytes
    blocks: int
    """Of data; the superblock follows them."""

    @property
    def label(self) -> bytes:
        """16 bytes in the superblock by which a slot that holds this image is found; nothing relies on them."""
        return self.root_hash[:16]


def append_tree(image: Path, salt: bytes) -> Verity:
    """Pad an image to whole blocks, append superblock and hash tree to it, and return what opens it."""
    if len(salt) != SALT:
        raise ValueError(f"a salt has {SALT} bytes")
    with image.open("r+b") as file:
        size = file.seek(0, 2)
        file.write(bytes(-size % BLOCK))
        blocks = -(-size // BLOCK)
        file.seek(0)
        tree, root = hash_tree(_blocks(file, blocks), salt)
        made = Verity(root, salt, blocks)
        file.seek(blocks * BLOCK)
        file.write(_superblock(made))
        file.write(tree)
    return made


def root_hash_of(image: Path, salt: bytes, blocks: int) -> bytes:
    """Return the root hash over so many blocks of an image; what is behind them, its tree for one, does not count."""
    with image.open("rb") as file:
        return hash_tree(_blocks(file, blocks), salt)[1]


def hash_tree(blocks: Iterable[bytes], salt: bytes) -> tuple[bytes, bytes]:
    """Return the tree over blocks of data, topmost level first, and the root hash."""
    levels = [b"".join(_hashes(blocks, salt))]
    while len(levels[-1]) > hashlib.sha256().digest_size:
        below = _padded(levels[-1])
        levels[-1] = below
        levels.append(b"".join(_hashes(_cut(below), salt)))
    root = levels.pop()
    return b"".join(reversed(levels)), root


def _blocks(file: IO[bytes], count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield file.read(BLOCK)


def _cut(level: bytes) -> Iterator[bytes]:
    for offset in range(0, len(level), BLOCK):
        yield level[offset : offset + BLOCK]


def _hashes(blocks: Iterable[bytes], salt: bytes) -> Iterator[bytes]:
    salted = hashlib.sha256(salt)
    for block in blocks:
        each = salted.copy()
        each.update(block)
        yield each.digest()


def _padded(level: bytes) -> bytes:
    return level + bytes(-len(level) % BLOCK)


def _superblock(made: Verity) -> bytes:
    head = _SUPERBLOCK.pack(
        b"verity\0\0", 1, 1, made.label, b"sha256", BLOCK, BLOCK, made.blocks, len(made.salt), made.salt
    )
    return head + bytes(BLOCK - len(head))
