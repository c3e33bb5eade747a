"""The slots for root file systems: which one holds a root, whether it is whole, and how one comes into a slot.

A node finds its slot by a label, in the block behind the data (`nodeimage/guest/first.sh`). So the label of an image is
in a slot only while all the rest of it is: it goes first, and comes last.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from umec_images.nodeimage.verity import BLOCK, hash_tree
from umec_images.update.device import Area
from umec_images.update.errors import ImageOther, SlotDamaged
from umec_images.update.kernel import Kernel
from umec_images.update.layout import Layout

__all__ = ["Written", "check_root", "label_root", "slot_of", "unlabel", "write_root"]

COPY: Final = 1024 * 1024
_LABEL: Final = 16
"""Offset of the label in its block."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of a root file system: its size and SHA-256 (hex), and the block of the label, which was not."""

    size: int
    sha256: str
    label: bytes


def slot_of(layout: Layout, kernel: Kernel) -> str | None:
    """Return the name of the slot that a node with this kernel image opens, or None: it would not start."""
    return next((name for name, partition in layout.roots.items() if _labelled(partition.area, kernel)), None)


def check_root(area: Area, kernel: Kernel) -> None:
    """Check that a slot holds the whole root file system of a kernel image. Raises SlotDamaged."""
    if not _labelled(area, kernel):
        raise SlotDamaged(f"the slot does not hold the root file system of version {kernel.version}")
    blocks = (area.read(number * BLOCK, BLOCK) for number in range(kernel.blocks))
    tree, root = hash_tree(blocks, kernel.salt)
    if root != kernel.root_hash or area.read((kernel.blocks + 1) * BLOCK, len(tree)) != tree:
        raise SlotDamaged(f"the root file system of version {kernel.version} is damaged on the disk")


def unlabel(area: Area, kernels: "list[Kernel]") -> None:
    """Let a slot hold none of these images."""
    for kernel in kernels:
        if _labelled(area, kernel):
            area.write(kernel.blocks * BLOCK, bytes(BLOCK))


def write_root(area: Area, chunks: Iterable[bytes], kernel: Kernel) -> Written:
    """Write a root file system into a slot as it comes, all but its label. Raises ImageOther, DiskUnfit."""
    digest, place, label = hashlib.sha256(), 0, b""
    for data in _whole_blocks(chunks):
        digest.update(data)
        cut = kernel.blocks * BLOCK - place
        if 0 <= cut < len(data):
            label = data[cut : cut + BLOCK]
            pieces = [(place, data[:cut]), (place + cut + BLOCK, data[cut + BLOCK :])]
        else:
            pieces = [(place, data)]
        for offset, piece in pieces:
            if piece:
                area.write(offset, piece)
        place += len(data)
    return Written(place, digest.hexdigest(), label)


def label_root(area: Area, written: Written, kernel: Kernel) -> None:
    """Write the label of a root file system that is in the slot already."""
    area.write(kernel.blocks * BLOCK, written.label)


def _labelled(area: Area, kernel: Kernel) -> bool:
    if (kernel.blocks + 1) * BLOCK > area.size:
        return False
    return area.read(kernel.blocks * BLOCK + _LABEL, len(kernel.label)) == kernel.label


def _whole_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        if len(waiting) >= COPY:
            whole = len(waiting) - len(waiting) % BLOCK
            yield bytes(waiting[:whole])
            del waiting[:whole]
    if len(waiting) % BLOCK:
        raise ImageOther("the root file system ends in the middle of a block")
    if waiting:
        yield bytes(waiting)
