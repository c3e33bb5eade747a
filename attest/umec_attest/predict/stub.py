"""What systemd-stub measures of a unified kernel image, and what the kernel in it measures of its own start.

Of systemd 252 (src/boot/efi/stub.c) and Linux 6.1 (drivers/firmware/efi/libstub), as real boots under OVMF show it.

1  the stub is of a version that is known here: others measure other sections, in another order
2  a section is one of the stub's own, or one of the four that a node image consists of, each once and not empty:
   whatever else there is, this stub or the next one acts upon
3  no section lies over another one in memory: the stub measures what is there when it runs
4  the command line is printable ASCII: the kernel gets it as the stub converts it
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.pe import PeImage, parse_pe
from umec_attest.reference import Stage

__all__ = ["UKI_SECTIONS", "Uki", "kernel", "read_uki", "sections"]

UKI_SECTIONS: Final = (".linux", ".osrel", ".cmdline", ".initrd")
"""In the order in which the stub measures them."""

_NAMES: Final = MappingProxyType(
    {".linux": "kernel", ".osrel": "name and version", ".cmdline": "command line", ".initrd": "initrd"}
)
"""What they are to an operator."""

_KNOWN_VERSIONS: Final = frozenset({"252"})
_VERSION: Final = re.compile(rb"#### LoaderInfo: systemd-stub (\d{1,4})(?:[^0-9 ][!-~]*)? ####\0*")
_OF_THE_STUB: Final = frozenset(
    {".text", ".rodata", ".data", ".bss", ".reloc", ".dynamic", ".dynsym", ".rela", ".sbat", ".sdmagic"}
)
_COMMAND_LINE: Final = re.compile(rb"[ -~]+")
_OPTIONS_EVENT: Final = b"LOADED_IMAGE::LoadOptions\0"
_INITRD_EVENT: Final = b"Linux initrd\0"
"""How a kernel describes its events in the log: a kernel without these words measures no such thing."""


@dataclass(frozen=True, slots=True)
class Uki:
    """A unified kernel image of which it is known what is measured. Only `read_uki` makes one."""

    image: PeImage
    sections: Mapping[str, bytes]


def read_uki(data: bytes) -> Uki:
    """Return the image with its four sections. Errors: `ImageFolderInvalid`."""
    image = parse_pe(data, what="uki.efi")
    _check_version(image)  # 1
    strange = sorted({section.name for section in image.sections} - _OF_THE_STUB - set(UKI_SECTIONS))
    if strange:  # 2
        raise ImageFolderInvalid(
            f"uki.efi has sections whose measurement is not predicted: {', '.join(strange)}",
            advice=f"a node image consists of {', '.join(UKI_SECTIONS)}",
        )
    sections = {name: image.section(name) or b"" for name in UKI_SECTIONS}
    missing = [name for name, content in sections.items() if not content]
    if missing:  # 2
        raise ImageFolderInvalid(f"uki.efi has nothing in {', '.join(missing)}")
    _check_memory(image)  # 3
    if not _COMMAND_LINE.fullmatch(sections[".cmdline"]):  # 4
        raise ImageFolderInvalid("the command line is not of printable ASCII characters alone")
    return Uki(image, MappingProxyType(sections))


def sections(digests: Mapping[str, bytes]) -> list[Stage]:
    """Return PCR 11: for each section its name (with a NUL) and the digest of its content."""
    return [
        Stage(_NAMES[name], digest)
        for name in UKI_SECTIONS
        for digest in (hashlib.sha256(name.encode() + b"\0").digest(), digests[name])
    ]


def kernel(image: bytes, command_line: str, initrd_sha256: bytes) -> list[Stage]:
    """Return PCR 9: what the kernel's own start measures, as far as this kernel does (both are of Linux 6.1 on).

    `command_line` goes in as the stub hands it over: UTF-16 with its NUL.
    """
    measured: list[Stage] = []
    if _OPTIONS_EVENT in image:
        digest = hashlib.sha256((command_line + "\0").encode("utf-16-le")).digest()
        measured.append(Stage(_NAMES[".cmdline"], digest))
    if _INITRD_EVENT in image:
        measured.append(Stage(_NAMES[".initrd"], initrd_sha256))
    return measured


def _check_version(image: PeImage) -> None:
    found = _VERSION.fullmatch(image.section(".sdmagic") or b"")
    if found is None:
        raise ImageFolderInvalid("uki.efi does not say which version of systemd-stub it is (.sdmagic)")
    version = found[1].decode()
    if version not in _KNOWN_VERSIONS:
        known = ", ".join(sorted(_KNOWN_VERSIONS))
        raise ImageFolderInvalid(f"what systemd-stub {version} measures is not known here, only what {known} does")


def _check_memory(image: PeImage) -> None:
    end, before = 0, ""
    for section in sorted(image.sections, key=lambda section: section.address):
        if section.address < end:
            raise ImageFolderInvalid(f"the sections {before} and {section.name} overlap in memory")
        end, before = section.address + section.virtual_size, section.name
