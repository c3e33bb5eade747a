"""Sample node images: the folder that a simulated firmware boots, and ways to change it behind its builder's back.

firmware.bin, firmware.version, efivars/{SecureBoot,PK,KEK,db,dbx}, uki.efi (.osrel .cmdline .initrd .linux)
"""

import struct
import uuid
from dataclasses import dataclass, replace
from enum import Enum, unique
from pathlib import Path
from typing import Final

from umec_attest.testing.errors import ImageInvalid
from umec_attest.testing.pe import make_pe, pe_sections

__all__ = ["VARIABLES", "NodeImage", "Tamper", "load_image", "make_image", "signature_list", "tampered"]

VARIABLES: Final = ("SecureBoot", "PK", "KEK", "db", "dbx")
"""In the order in which firmware measures them (PFP 3.3.4.8)."""
CERT_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
CERT_SHA256: Final = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")
OWNER: Final = uuid.UUID("77fa9abd-0359-4d32-bd60-28f4e78f784b")
MAX_FILE: Final = 256 * 1024 * 1024
INIT_SHELL: Final = b"init=/bin/sh "


@unique
class Tamper(Enum):
    """What somebody may change on a node between two boots."""

    CMDLINE = "cmdline"
    KERNEL = "kernel"
    INITRD = "initrd"
    FIRMWARE = "firmware"
    SECURE_BOOT = "secure-boot"


@dataclass(frozen=True, slots=True)
class NodeImage:
    """The contents of a node image folder."""

    firmware: bytes
    version: str
    variables: dict[str, bytes]
    uki: bytes


def make_image(
    directory: Path,
    *,
    kernel: bytes = b"a kernel",
    initrd: bytes = b"an initial ram disk",
    cmdline: str = "root=/dev/mapper/root ro panic=-1",
    osrel: str = 'ID=umec-node\nVERSION_ID="1"\n',
    firmware: bytes = b"a firmware" * 100,
    version: str = "umec-firmware-1",
    secure_boot: bool = True,
) -> Path:
    """Write a small, valid node image folder; returns `directory`. The kernel becomes a PE image, as real ones are."""
    (directory / "efivars").mkdir(parents=True, exist_ok=True)
    (directory / "firmware.bin").write_bytes(firmware)
    (directory / "firmware.version").write_text(version)
    variables = {
        "SecureBoot": bytes([secure_boot]),
        "PK": signature_list(CERT_X509, b"the platform key"),
        "KEK": signature_list(CERT_X509, b"the key exchange key"),
        "db": signature_list(CERT_X509, b"the certificate that signs node images"),
        "dbx": signature_list(CERT_SHA256, bytes(32)),
    }
    for name, value in variables.items():
        (directory / "efivars" / name).write_bytes(value)
    uki = make_pe(
        {
            ".osrel": osrel.encode(),
            ".cmdline": cmdline.encode(),
            ".initrd": initrd,
            ".linux": make_pe({".data": kernel}),
        }
    )
    (directory / "uki.efi").write_bytes(uki)
    return directory


def load_image(directory: Path) -> NodeImage:
    """Read a node image folder. Raises ImageInvalid if a part is missing."""
    try:
        return NodeImage(
            _read(directory / "firmware.bin"),
            _read(directory / "firmware.version").decode().strip(),
            {name: _read(directory / "efivars" / name) for name in VARIABLES},
            _read(directory / "uki.efi"),
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ImageInvalid(f"not a node image folder: {error}") from error


def tampered(image: NodeImage, what: Tamper) -> NodeImage:
    """Return the image with one stage changed; every other byte stays."""
    if what is Tamper.FIRMWARE:
        return replace(image, firmware=image.firmware + b"\0")
    if what is Tamper.SECURE_BOOT:
        return replace(image, variables={**image.variables, "SecureBoot": b"\0"})
    if what is Tamper.CMDLINE:
        return replace(image, uki=_overwritten(image.uki, ".cmdline", INIT_SHELL))
    section = ".linux" if what is Tamper.KERNEL else ".initrd"
    return replace(image, uki=_flipped(image.uki, section))


def signature_list(kind: uuid.UUID, data: bytes) -> bytes:
    """Return an EFI_SIGNATURE_LIST with one entry (UEFI 32.4.1)."""
    signature = OWNER.bytes_le + data
    return kind.bytes_le + struct.pack("<III", 28 + len(signature), 0, len(signature)) + signature


def _overwritten(uki: bytes, name: str, text: bytes) -> bytes:
    start, size = _place(uki, name)
    text = text[:size]
    return uki[:start] + text + uki[start + len(text) :]


def _flipped(uki: bytes, name: str) -> bytes:
    start, size = _place(uki, name)
    last = start + size - 1
    return uki[:last] + bytes([uki[last] ^ 1]) + uki[last + 1 :]


def _place(uki: bytes, name: str) -> tuple[int, int]:
    for section in pe_sections(uki):
        if section.name == name and min(section.virtual_size, section.raw_size) > 0:
            return section.raw_offset, min(section.virtual_size, section.raw_size)
    raise ImageInvalid(f"the image has no section {name}")


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE:
        raise ImageInvalid(f"{path.name} is larger than {MAX_FILE} bytes")
    return path.read_bytes()
