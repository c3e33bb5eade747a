"""The first file system: finds the slot that holds the signed root hash, opens it with dm-verity, and goes on there.

BusyBox, dmsetup with its libraries, the modules for it, and one script (`guest/first.sh`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from umec_images.nodeimage import cpio
from umec_images.nodeimage.cpio import Member
from umec_images.nodeimage.elf import needed
from umec_images.nodeimage.kernel import Kernel, module_order
from umec_images.nodeimage.tree import read_file

__all__ = ["PACKAGES", "make_initrd"]

PACKAGES: Final = ("busybox-static", "dmsetup")
"""What a tree has to have for this."""
MODULES: Final = ("dm_verity", "squashfs")
_BUSYBOX: Final = "usr/bin/busybox"
_DMSETUP: Final = "usr/sbin/dmsetup"
_LOADER: Final = "usr/lib64/ld-linux-x86-64.so.2"
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"


def make_initrd(root: Path, kernel: Kernel, modules: Iterable[str], script: bytes, moment: int) -> bytes:
    """Return the archive, made of files of a tree. Raises ModuleMissing, ContentRefused."""
    order = module_order([*MODULES, *modules], kernel)
    members = {
        "init": Member(cpio.PROGRAM, script),
        "bin/busybox": Member(cpio.PROGRAM, read_file(root, _BUSYBOX)),
        "bin/sh": Member(cpio.LINK, b"busybox"),
        "sbin/dmsetup": Member(cpio.PROGRAM, read_file(root, _DMSETUP)),
        "lib64/ld-linux-x86-64.so.2": Member(cpio.PROGRAM, read_file(root, _LOADER)),
        "modules/order": Member(cpio.FILE, "".join(f"{Path(path).name}\n" for path in order).encode()),
        "dev/console": Member(cpio.DEVICE, device=(5, 1)),
    }
    for folder in ("dev", "proc", "sys", "system"):
        members[folder] = Member(cpio.FOLDER)
    for name, content in _libraries(root).items():
        members[f"lib/x86_64-linux-gnu/{name}"] = Member(cpio.FILE, content)
    for path in order:
        members[f"modules/{Path(path).name}"] = Member(cpio.FILE, (kernel.folder / path).read_bytes())
    return cpio.archive(members, moment)


def _libraries(root: Path) -> Mapping[str, bytes]:
    """Return the libraries that dmsetup and its libraries need, by name, without the loader."""
    found: dict[str, bytes] = {}
    waiting = needed(read_file(root, _DMSETUP))
    while waiting:
        name = waiting.pop()
        if name not in found and name != Path(_LOADER).name:
            found[name] = read_file(root, f"{_LIBRARIES}/{name}")
            waiting += needed(found[name])
    return dict(sorted(found.items()))
