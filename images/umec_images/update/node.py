"""The machine that this runs on, as an update sees it: its disk, what runs of it, its firmware, and how it restarts."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.update.errors import DiskUnfit
from umec_images.update.firmware import EfiVariables
from umec_images.update.kernel import command_line_root

__all__ = ["Node", "find_disk", "this_node"]

ROOT_DEVICE: Final = "root"
"""The dm-verity device that the initrd made (`nodeimage/guest/first.sh`)."""
MAX_COMMAND_LINE: Final = 4096


@dataclass(frozen=True, slots=True)
class Node:
    """A node that runs: `running` is the root hash of what does."""

    disk: Path
    variables: EfiVariables
    running: bytes
    restart: Callable[[], None]


def this_node(system: Path = Path("/sys"), command_line: Path = Path("/proc/cmdline")) -> Node:
    """Return this machine. Raises DiskUnfit, OSError."""
    with command_line.open("rb") as file:
        text = file.read(MAX_COMMAND_LINE).decode(errors="replace")
    variables = EfiVariables(system / "firmware/efi/efivars")
    return Node(find_disk(system), variables, command_line_root(text), _restart)


def find_disk(system: Path) -> Path:
    """Return the disk of which the verified root file system is read, by what the kernel says. Raises DiskUnfit.

    Another disk may have partitions of the same names: whoever plugs one in is not asked.
    """
    for device in sorted((system / "class/block").glob("dm-*")):
        if (device / "dm/name").read_text().strip() == ROOT_DEVICE:
            slots = {each.resolve() for each in (device / "slaves").iterdir()}
            disks = {slot.parent.name for slot in slots if (slot / "partition").exists()}
            if len(disks) == 1:
                return Path("/dev") / disks.pop()
    raise DiskUnfit("the root file system of this machine is on no partition of one disk")


def _restart() -> None:
    subprocess.run(["/usr/bin/busybox", "sync"], check=False)
    subprocess.run(["/usr/bin/busybox", "reboot", "-f"], check=True)
