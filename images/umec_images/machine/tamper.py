"""What somebody does to a node whose box is open: its disk and its flash are in their hands, its TPM is not.

    kernel, cmdline, initrd   a part of the kernel image is changed; nobody signs it anew
    root                      four bytes of the root file system are flipped, in a block that every boot reads
    keys                      the kernel image is changed and signed by keys of the attacker, which replace the owner's
    firmware-vars             Secure Boot is switched off; nothing else is changed
    downgrade                 an older image of the owner, signed as it was, is put on the disk

Each is done to a node's folder (`umec_images.machine.node`), never to an image.
"""

import datetime as dt
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.machine.errors import TamperingRefused
from umec_images.machine.esp import read_files
from umec_images.machine.folder import NodeImageFolder
from umec_images.machine.node import install
from umec_images.machine.partitions import read_span, spans, write_span
from umec_images.machine.ukichange import FLIPPED, append_words, flip_bytes, unsigned
from umec_images.nodeimage.authenticode import sign_image
from umec_images.nodeimage.fat import file_system
from umec_images.nodeimage.keys import load_certificates, load_signer, make_keys
from umec_images.nodeimage.variables import store_room, variable_store

__all__ = ["Attacker", "tamper"]

WORD: Final = b" umec.tampered=1"
"""What the attacker adds to a command line: that it is there is enough."""
ROOT: Final = ("root-a", "root-b")
SQUASHFS_TIME: Final = 8
"""Offset of the superblock's time of making: nothing but dm-verity looks at it, and it is in the first block."""
SWITCH: Final = "SecureBootEnable".encode("utf-16-le") + b"\0\0"


@dataclass(frozen=True, slots=True)
class Attacker:
    """Where they make their keys, when, and which older image of the owner they have found."""

    folder: Path
    now: dt.datetime
    older: NodeImageFolder | None = None


def tamper(kind: str, node: Path, attacker: Attacker) -> None:
    """Do it to the node in that folder. Raises TamperingRefused, DiskUnreadable, and what making keys raises."""
    doing = _KINDS.get(kind)
    if doing is None:
        raise TamperingRefused(f"nobody tampers with {kind!r}", advice=f"one of {', '.join(_KINDS)}")
    doing(node, attacker)


def _kernel(node: Path, _: Attacker) -> None:
    _change_kernel_images(node, lambda image: flip_bytes(image, ".linux"))


def _command_line(node: Path, _: Attacker) -> None:
    _change_kernel_images(node, lambda image: append_words(image, ".cmdline", WORD))


def _initrd(node: Path, _: Attacker) -> None:
    _change_kernel_images(node, lambda image: flip_bytes(image, ".initrd"))


def _root(node: Path, _: Attacker) -> None:
    disk = node / "disk.img"
    found = spans(disk)
    for name in ROOT:
        if name not in found:
            raise TamperingRefused(f"the disk has no partition {name}")
        begin = read_span(disk, found[name])[SQUASHFS_TIME : SQUASHFS_TIME + FLIPPED]
        write_span(disk, found[name], SQUASHFS_TIME, bytes(byte ^ 0xFF for byte in begin))


def _keys(node: Path, attacker: Attacker) -> None:
    make_keys(attacker.folder, attacker.now)
    signer = load_signer(attacker.folder)

    def again(image: bytes) -> bytes:
        return sign_image(append_words(unsigned(image), ".cmdline", WORD), signer)

    _change_kernel_images(node, again)
    store = _erased((node / "vars.fd").read_bytes())
    (node / "vars.fd").write_bytes(variable_store(store, load_certificates(attacker.folder)))


def _firmware_variables(node: Path, _: Attacker) -> None:
    store = (node / "vars.fd").read_bytes()
    begin, found, end = store.partition(SWITCH)
    if end[:1] != b"\x01":
        raise TamperingRefused("Secure Boot is not on in this variable store")
    (node / "vars.fd").write_bytes(begin + found + b"\0" + end[1:])


def _downgrade(node: Path, attacker: Attacker) -> None:
    if attacker.older is None:
        raise TamperingRefused("an older image has to be found first", advice="--older FOLDER")
    variables = (node / "vars.fd").read_bytes()
    install(attacker.older, node)
    (node / "vars.fd").write_bytes(variables)


def _erased(store: bytes) -> bytes:
    """Return the firmware's store without any variable: its header, and erased flash."""
    try:
        first, end = store_room(store)
    except (struct.error, ValueError) as error:
        raise TamperingRefused("vars.fd is no variable store") from error
    return store[:first] + b"\xff" * (end - first) + store[end:]


_KINDS: Final[Mapping[str, Callable[[Path, Attacker], None]]] = {
    "kernel": _kernel,
    "cmdline": _command_line,
    "initrd": _initrd,
    "root": _root,
    "keys": _keys,
    "firmware-vars": _firmware_variables,
    "downgrade": _downgrade,
}


def _change_kernel_images(node: Path, change: Callable[[bytes], bytes]) -> None:
    disk = node / "disk.img"
    partition = spans(disk).get("esp")
    if partition is None:
        raise TamperingRefused("the disk has no EFI partition")
    files = read_files(read_span(disk, partition))
    changed = {name: change(content) if name.endswith(".EFI") else content for name, content in files.items()}
    if changed == files:
        raise TamperingRefused("the EFI partition has no kernel image")
    for offset, piece in file_system(changed, partition.size):
        write_span(disk, partition, offset, piece)
