"""What is on a node's disk: which image a firmware starts, what is in the other slot, and what an update has come to.

EFI/BOOT/BOOTX64.EFI   the confirmed image: what a firmware starts that was asked for nothing else
EFI/BOOT/OTHER.EFI     the image in the other slot, if there is one: on trial, or the one before
EFI/UMEC/STATE*.BIN    the record of the update, twice
"""

from dataclasses import dataclass, replace
from typing import Final

from umec_images.update.device import Area, Device
from umec_images.update.errors import DiskUnfit, SlotDamaged
from umec_images.update.esp import Esp, open_esp
from umec_images.update.kernel import Kernel, read_kernel
from umec_images.update.layout import ROOTS, Layout, read_layout
from umec_images.update.slots import slot_of
from umec_images.update.state import Phase, Record, encode, newest

__all__ = ["BOOT", "OTHER", "STATES", "Survey", "note", "survey"]

BOOT: Final = "EFI/BOOT/BOOTX64.EFI"
OTHER: Final = "EFI/BOOT/OTHER.EFI"
STATES: Final = ("EFI/UMEC/STATE0.BIN", "EFI/UMEC/STATE1.BIN")


@dataclass(frozen=True, slots=True)
class Survey:
    """A node's disk as it was when it was looked at."""

    device: Device
    layout: Layout
    esp: Esp
    confirmed: Kernel
    slot: str
    """The slot of the confirmed image."""
    other: Kernel | None
    record: Record

    @property
    def free(self) -> str:
        """The other slot."""
        return next(name for name in ROOTS if name != self.slot)

    @property
    def target(self) -> Area:
        """The other slot's bytes."""
        return self.layout.roots[self.free].area


def survey(device: Device) -> Survey:
    """Look at a node's disk. Raises DiskUnfit, SlotDamaged."""
    layout = read_layout(device)
    esp = open_esp(layout.esp.area)
    confirmed = read_kernel(esp.read(BOOT))
    slot = slot_of(layout, confirmed)
    if slot is None:
        raise SlotDamaged(f"no slot holds the root file system of version {confirmed.version}, which is confirmed")
    record, _ = newest([esp.read(path) for path in STATES])
    return Survey(device, layout, esp, confirmed, slot, _other(esp), record)


def note(seen: Survey, phase: Phase, record: Record | None = None) -> Record:
    """Write down what an update has come to, so that it is there after any cut, or the record before is."""
    copies = [seen.esp.read(path) for path in STATES]
    present, place = newest(copies)
    fresh = replace(record or present, generation=present.generation + 1, phase=phase)
    seen.device.flush()
    seen.esp.overwrite(STATES[place], encode(fresh))
    seen.device.flush()
    return fresh


def _other(esp: Esp) -> Kernel | None:
    if OTHER not in esp.files:
        return None
    try:
        return read_kernel(esp.read(OTHER))
    except DiskUnfit:
        return None
