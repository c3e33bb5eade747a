"""UEFI structures as firmware measures them (UEFI 2.10, 32.4.1; firmware profile, 10.2.6)."""

import struct
import uuid
from typing import Final

__all__ = ["GLOBAL_VARIABLE", "IMAGE_SECURITY_DATABASE", "first_signature", "variable_data"]

GLOBAL_VARIABLE: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY_DATABASE: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")

_LIST_HEADER: Final = struct.Struct("<16sIII")
_OWNER_SIZE: Final = 16


def variable_data(vendor: uuid.UUID, name: str, data: bytes) -> bytes:
    """Return the UEFI_VARIABLE_DATA that is measured for a variable: the name without a NUL."""
    encoded = name.encode("utf-16-le")
    return vendor.bytes_le + struct.pack("<QQ", len(encoded) // 2, len(data)) + encoded + data


def first_signature(database: bytes) -> bytes | None:
    """Return the first EFI_SIGNATURE_DATA of a list of EFI_SIGNATURE_LISTs; None if `database` is no such list."""
    first: bytes | None = None
    offset = 0
    while offset < len(database):
        if offset + _LIST_HEADER.size > len(database):
            return None
        _kind, list_size, header_size, signature_size = _LIST_HEADER.unpack_from(database, offset)
        body = list_size - _LIST_HEADER.size - header_size
        if offset + list_size > len(database) or signature_size <= _OWNER_SIZE or body < 0 or body % signature_size:
            return None
        if first is None and body:
            start = offset + _LIST_HEADER.size + header_size
            first = database[start : start + signature_size]
        offset += list_size
    return first
