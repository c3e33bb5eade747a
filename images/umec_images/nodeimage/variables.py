"""Secure Boot variables: their values, and a variable store of OVMF that holds them.

A value is a list of signatures (UEFI 2.10 §32.4.1) with one X.509 certificate. The store is OVMF's empty one with
authenticated variables appended (EDK II, Include/Guid/VariableFormat.h).
"""

import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from umec_images.nodeimage.errors import KeysInvalid
from umec_images.nodeimage.keys import SecureBootKeys

__all__ = ["VARIABLE", "VARIABLE_ADDED", "VARIABLE_START", "measured_variables", "store_room", "variable_store"]

_GLOBAL: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_SECURITY_DATABASE: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_SECURE_BOOT_ENABLE: Final = uuid.UUID("f0a30bc7-af08-4556-99c4-001009c93a44")
_CERT_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_OWNER: Final = uuid.UUID("5c3f1e1b-6d2e-5c0a-9a0e-6a5f0b1b7c10")
"""Who enrolled a certificate: firmware shows it and judges nothing by it."""

_NV_BS: Final = 0x3
_NV_BS_RT_AUTHENTICATED: Final = 0x27
_STORE_MAGIC: Final = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
"""gEfiAuthenticatedVariableGuid."""
_STORE_HEADER: Final = struct.Struct("<16sIBBHI")
_FORMATTED: Final = 0x5A
_HEALTHY: Final = 0xFE
VARIABLE: Final = struct.Struct("<HBxIQ16sIII16s")
VARIABLE_START: Final = 0x55AA
VARIABLE_ADDED: Final = 0x3F
_ENROLLED: Final = struct.pack("<HBBBBBxIhBx", 2020, 1, 1, 0, 0, 0, 0, 0, 0)
"""The EFI_TIME of authenticated variables: any update of a later time is newer."""


@dataclass(frozen=True, slots=True)
class _Variable:
    vendor: uuid.UUID
    name: str
    attributes: int
    data: bytes


def measured_variables(keys: SecureBootKeys) -> Mapping[str, bytes]:
    """Return SecureBoot, PK, KEK, db and dbx as a firmware with these keys measures them."""
    return {
        "SecureBoot": b"\x01",
        "PK": _signature_list(keys.platform),
        "KEK": _signature_list(keys.exchange),
        "db": _signature_list(keys.database),
        "dbx": b"",
    }


def variable_store(empty: bytes, keys: SecureBootKeys) -> bytes:
    """Return OVMF's empty variable store with the keys enrolled and Secure Boot on. Raises KeysInvalid."""
    values = measured_variables(keys)
    variables = [
        _Variable(_SECURE_BOOT_ENABLE, "SecureBootEnable", _NV_BS, b"\x01"),
        _Variable(_SECURITY_DATABASE, "db", _NV_BS_RT_AUTHENTICATED, values["db"]),
        _Variable(_GLOBAL, "KEK", _NV_BS_RT_AUTHENTICATED, values["KEK"]),
        _Variable(_GLOBAL, "PK", _NV_BS_RT_AUTHENTICATED, values["PK"]),
    ]
    start, end = _room(empty)
    added = b"".join(_padded(_encode(each), b"\xff") for each in variables)
    if len(added) > end - start:
        raise KeysInvalid(f"the certificates need {len(added)} bytes, and the variable store has {end - start}")
    return empty[:start] + added + empty[start + len(added) :]


def _signature_list(certificate: x509.Certificate) -> bytes:
    signature = _OWNER.bytes_le + certificate.public_bytes(Encoding.DER)
    return _CERT_X509.bytes_le + struct.pack("<III", 28 + len(signature), 0, len(signature)) + signature


def store_room(store: bytes) -> tuple[int, int]:
    """Return where variables stand: behind the headers, up to an end that a store that was cut does not reach.

    Raises struct.error where there are no whole headers, and ValueError where they are not OVMF's.
    """
    (volume_header,) = struct.unpack_from("<H", store, 48)
    magic, size, form, state, _, _ = _STORE_HEADER.unpack_from(store, volume_header)
    if store[40:44] != b"_FVH" or (magic, form, state) != (_STORE_MAGIC, _FORMATTED, _HEALTHY):
        raise ValueError("this is no variable store of OVMF with authenticated variables")
    return volume_header + _STORE_HEADER.size, volume_header + size


def _room(store: bytes) -> tuple[int, int]:
    try:
        start, end = store_room(store)
    except struct.error:
        raise KeysInvalid("the variable store is too short") from None
    except ValueError as error:
        raise KeysInvalid(str(error)) from None
    if end > len(store) or store[start:end].strip(b"\xff"):
        raise KeysInvalid("the variable store is not empty")
    return start, end


def _encode(variable: _Variable) -> bytes:
    name = variable.name.encode("utf-16-le") + b"\0\0"
    time = _ENROLLED if variable.attributes == _NV_BS_RT_AUTHENTICATED else bytes(16)
    vendor = variable.vendor.bytes_le
    sizes = (len(name), len(variable.data))
    header = VARIABLE.pack(VARIABLE_START, VARIABLE_ADDED, variable.attributes, 0, time, 0, *sizes, vendor)
    return header + name + variable.data


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % 4)
