"""Changing a unified kernel image from outside: a section's content in its place, and the signature taken off."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from umec_images.machine.errors import TamperingRefused

__all__ = ["append_words", "flip_bytes", "unsigned"]

_SECTION: Final = struct.Struct("<8sIIII16x")
_CERTIFICATES: Final = 112 + 4 * 8
"""Offset of the certificate table's entry in the optional header of PE32+."""
FLIPPED: Final = 4


@dataclass(frozen=True, slots=True)
class _Section:
    header: int
    size: int
    raw_size: int
    raw: int


def flip_bytes(image: bytes, name: str) -> bytes:
    """Return the image with four bytes in the middle of a section flipped. Raises TamperingRefused."""
    section = _section(image, name)
    if section.size < FLIPPED:
        raise TamperingRefused(f"the section {name} has {section.size} bytes")
    place = section.raw + (section.size - FLIPPED) // 2
    changed = bytes(byte ^ 0xFF for byte in image[place : place + FLIPPED])
    return image[:place] + changed + image[place + FLIPPED :]


def append_words(image: bytes, name: str, words: bytes) -> bytes:
    """Return the image with `words` at the end of a section of text, where the file has room for them there.

    Where it has none, they take the place of the text's end. Raises TamperingRefused.
    """
    section = _section(image, name)
    if len(words) > section.raw_size:
        raise TamperingRefused(f"the section {name} has no room for {len(words)} bytes")
    size = min(section.size + len(words), section.raw_size)
    place = section.raw + size - len(words)
    changed = bytearray(image)
    changed[place : place + len(words)] = words
    struct.pack_into("<I", changed, section.header + 8, size)  # VirtualSize: how much of it counts
    return bytes(changed)


def unsigned(image: bytes) -> bytes:
    """Return the image without its signature. Raises TamperingRefused."""
    optional, _ = _headers(image)
    offset, size = struct.unpack_from("<II", image, optional + _CERTIFICATES)
    if offset + size != len(image):
        raise TamperingRefused("the kernel image has no signature at its end")
    entry = optional + _CERTIFICATES
    return image[:entry] + bytes(8) + image[entry + 8 : offset]


def _section(image: bytes, name: str) -> _Section:
    found = next((section for label, section in _sections(image) if label == name), None)
    if found is None or found.raw + found.raw_size > len(image):
        raise TamperingRefused(f"the kernel image has no section {name}")
    return found


def _sections(image: bytes) -> Iterator[tuple[str, _Section]]:
    optional, count = _headers(image)
    table = optional + struct.unpack_from("<H", image, optional - 4)[0]
    try:
        for place in range(count):
            header = table + place * _SECTION.size
            label, size, _address, raw_size, raw = _SECTION.unpack_from(image, header)
            yield label.rstrip(b"\0").decode("latin-1"), _Section(header, min(size, raw_size), raw_size, raw)
    except struct.error as error:
        raise TamperingRefused("the kernel image ends in its section table") from error


def _headers(image: bytes) -> tuple[int, int]:
    """Return the offset of the optional header, and how many sections there are."""
    try:
        (start,) = struct.unpack_from("<I", image, 0x3C)
        (count,) = struct.unpack_from("<H", image, start + 6)
        struct.unpack_from("<II", image, start + 24 + _CERTIFICATES)
    except struct.error as error:
        raise TamperingRefused("the kernel image ends in its headers") from error
    if image[start : start + 4] != b"PE\0\0":
        raise TamperingRefused("what the firmware starts is no PE image")
    return start + 24, count
