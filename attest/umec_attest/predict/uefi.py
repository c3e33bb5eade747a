"""UEFI structures as firmware measures them (UEFI 2.10, 32.4.1; firmware profile, 10.2.6)."""

import struct
import uuid
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CERT_X509",
    "GLOBAL_VARIABLE",
    "IMAGE_SECURITY_DATABASE",
    "Signature",
    "first_signature",
    "signatures",
    "variable_data",
]

GLOBAL_VARIABLE: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY_DATABASE: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
CERT_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
"""EFI_CERT_X509_GUID: the list holds certificates (DER)."""

_LIST_HEADER: Final = struct.Struct("<16sIII")
_OWNER_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Signature:
    """One entry of a database. `data` is the EFI_SIGNATURE_DATA: the GUID of its owner, then the content."""

    kind: uuid.UUID
    data: bytes

    @property
    def content(self) -> bytes:
        """The certificate (DER) or the hash."""
        return self.data[_OWNER_SIZE:]


def variable_data(vendor: uuid.UUID, name: str, data: bytes) -> bytes:
    """Return the UEFI_VARIABLE_DATA that is measured for a variable: the name without a NUL."""
    encoded = name.encode("utf-16-le")
    return vendor.bytes_le + struct.pack("<QQ", len(encoded) // 2, len(data)) + encoded + data


def signatures(database: bytes) -> tuple[Signature, ...] | None:
    """Return what a list of EFI_SIGNATURE_LISTs holds, in its order; None if `database` is no such list."""
    found: list[Signature] = []
    offset = 0
    while offset < len(database):
        if offset + _LIST_HEADER.size > len(database):
            return None
        kind, list_size, header_size, size = _LIST_HEADER.unpack_from(database, offset)
        body = list_size - _LIST_HEADER.size - header_size
        if offset + list_size > len(database) or size <= _OWNER_SIZE or body < 0 or body % size:
            return None
        start = offset + _LIST_HEADER.size + header_size
        kind = uuid.UUID(bytes_le=kind)
        found += [Signature(kind, database[place : place + size]) for place in range(start, start + body, size)]
        offset += list_size
    return tuple(found)


def first_signature(database: bytes) -> bytes | None:
    """Return the first EFI_SIGNATURE_DATA of a list of EFI_SIGNATURE_LISTs; None if `database` is no such list."""
    found = signatures(database)
    return found[0].data if found else None
