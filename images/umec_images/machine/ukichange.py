"""Changing a unified kernel image from outside: a section's content in its place, and the signature taken off."""

import struct
from dataclasses import replace
from typing import Final

from umec_images.machine.errors import TamperingRefused
from umec_images.nodeimage.pe import CERTIFICATES, Headers, Section, read_headers, read_sections

__all__ = ["append_words", "flip_bytes", "unsigned"]

FLIPPED: Final = 4


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
    entry = _headers(image).optional + CERTIFICATES
    offset, size = struct.unpack_from("<II", image, entry)
    if offset + size != len(image):
        raise TamperingRefused("the kernel image has no signature at its end")
    return image[:entry] + bytes(8) + image[entry + 8 : offset]


def _section(image: bytes, name: str) -> Section:
    headers = _headers(image)
    try:
        found = next((each for each in read_sections(image, headers) if each.name == name.encode()), None)
    except struct.error as error:
        raise TamperingRefused("the kernel image ends in its section table") from error
    if found is None or found.raw + found.raw_size > len(image):
        raise TamperingRefused(f"the kernel image has no section {name}")
    return replace(found, size=min(found.size, found.raw_size))


def _headers(image: bytes) -> Headers:
    try:
        headers = read_headers(image)
        struct.unpack_from("<II", image, headers.optional + CERTIFICATES)
    except struct.error as error:
        raise TamperingRefused("the kernel image ends in its headers") from error
    if image[headers.start : headers.start + 4] != b"PE\0\0":
        raise TamperingRefused("what the firmware starts is no PE image")
    return headers
