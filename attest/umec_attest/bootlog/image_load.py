"""Where an image was loaded from, as firmware tells it (UEFI_IMAGE_LOAD_EVENT, firmware profile, 10.2.3).

It is in no digest: for people who look at a log, never for a decision.
"""

import struct
import uuid
from collections.abc import Callable
from typing import Final

__all__ = ["device_path"]

_HEADER: Final = struct.Struct("<QQQQ")
_NODE_HEADER_SIZE: Final = 4
_END: Final = (0x7F, 0xFF)
_PCI_ROOT: Final = 0x0A0341D0
_GUID_SIZE: Final = 16


def device_path(data: bytes) -> str | None:
    """Return the path in the event of a loaded image, as UEFI writes it (2.10, 10.6); None if it is no such event.

    An image that came from memory has an empty path; nodes that are not known here are `Path(type,subtype,hex)`.
    """
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[3] != len(data) - _HEADER.size:
        return None
    nodes: list[str] = []
    at = _HEADER.size
    while at < len(data):
        kind, size = (data[at], data[at + 1 : at + 2]), int.from_bytes(data[at + 2 : at + 4], "little")
        if size < _NODE_HEADER_SIZE or at + size > len(data):
            return None
        if (kind[0], kind[1][0]) != _END:
            nodes.append(_text(kind[0], kind[1][0], data[at + _NODE_HEADER_SIZE : at + size]))
        at += size
    return "/".join(nodes)


def _text(kind: int, subtype: int, body: bytes) -> str:
    size, write = _KNOWN.get((kind, subtype), (None, None))
    if write is not None and size in {None, len(body)}:
        return write(body)
    return f"Path({kind},{subtype},{body.hex()})"


def _pci(body: bytes) -> str:
    return f"Pci(0x{body[1]:x},0x{body[0]:x})"


def _acpi(body: bytes) -> str:
    identifier, number = struct.unpack("<II", body)
    return f"PciRoot(0x{number:x})" if identifier == _PCI_ROOT else f"Acpi(0x{identifier:08x},0x{number:x})"


def _partition(body: bytes) -> str:
    return f"HD({int.from_bytes(body[:4], 'little')},{uuid.UUID(bytes_le=body[20:36])})"


def _file(body: bytes) -> str:
    return body.decode("utf-16-le", "replace").rstrip("\0")


def _firmware(body: bytes) -> str:
    return f"Fv({uuid.UUID(bytes_le=body)})"


def _offset(body: bytes) -> str:
    first, last = struct.unpack_from("<QQ", body, 4)
    return f"Offset(0x{first:x},0x{last:x})"


_KNOWN: Final[dict[tuple[int, int], tuple[int | None, Callable[[bytes], str]]]] = {
    (1, 1): (2, _pci),
    (2, 1): (8, _acpi),
    (4, 1): (38, _partition),
    (4, 4): (None, _file),
    (4, 6): (_GUID_SIZE, _firmware),
    (4, 7): (_GUID_SIZE, _firmware),
    (4, 8): (20, _offset),
}
"""Type and subtype -> the size of what follows the header, None for any, and how it is written."""
