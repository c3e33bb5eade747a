"""The slots for root file systems: which one holds a root, whether it is whole, and how one comes into a slot.

A node finds its slot by a label, in the block behind the data (`nodeimage/guest/first.sh`). So the label of an image is
in a slot only while all the rest of it is: it goes first, and comes last.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from umec_images.nodeimage.verity import BLOCK, hash_tree
from umec_images.update.device import Area
from umec_images.update.errors import SlotDamaged
from umec_images.update.kernel import Kernel
from umec_images.update.layout import Layout

__all__ = ["check_root", "label_root", "slot_of", "unlabel", "write_root"]

COPY: Final = 4 * 1024 * 1024
_LABEL: Final = 16
"""Offset of the label in its block."""


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


def write_root(area: Area, root: Path, kernel: Kernel) -> None:
    """Write a root file system into a slot, all but its label."""
    for offset, data in _without_label(root, kernel):
        area.write(offset, data)


def label_root(area: Area, root: Path, kernel: Kernel) -> None:
    """Write the label of a root file system that is in the slot already."""
    with root.open("rb") as file:
        file.seek(kernel.blocks * BLOCK)
        area.write(kernel.blocks * BLOCK, file.read(BLOCK))


def _labelled(area: Area, kernel: Kernel) -> bool:
    if (kernel.blocks + 1) * BLOCK > area.size:
        return False
    return area.read(kernel.blocks * BLOCK + _LABEL, len(kernel.label)) == kernel.label


def _without_label(root: Path, kernel: Kernel) -> Iterator[tuple[int, bytes]]:
    label = kernel.blocks * BLOCK
    with root.open("rb") as file:
        place = 0
        while data := file.read(COPY if place > label else min(COPY, label - place) or BLOCK):
            if place != label:
                yield place, data
            place += len(data)
