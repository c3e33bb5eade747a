"""UEFI structures inside event data (UEFI 2.10, 32.4; firmware profile, 10.2.6)."""

import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = ["GLOBAL_VARIABLE", "IMAGE_SECURITY_DATABASE", "SHIM_LOCK", "EfiVariable", "parse_variable"]

GLOBAL_VARIABLE: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY_DATABASE: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SHIM_LOCK: Final = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23")

_HEADER_SIZE: Final = 32
_MAX_NAME: Final = 512
"""Characters; names of variables are short words."""


@dataclass(frozen=True, slots=True)
class EfiVariable:
    """UEFI_VARIABLE_DATA: whose variable, its name and its content."""

    vendor: uuid.UUID
    name: str
    data: bytes


def parse_variable(data: bytes) -> EfiVariable | None:
    """Parse a UEFI_VARIABLE_DATA that fills `data`; None if it is none."""
    if len(data) < _HEADER_SIZE:
        return None
    characters, size = int.from_bytes(data[16:24], "little"), int.from_bytes(data[24:32], "little")
    if characters > _MAX_NAME or _HEADER_SIZE + 2 * characters + size != len(data):
        return None
    name, content = data[_HEADER_SIZE : _HEADER_SIZE + 2 * characters], data[_HEADER_SIZE + 2 * characters :]
    try:
        text = name.decode("utf-16-le")
    except UnicodeDecodeError:
        return None
    return EfiVariable(_vendor(data[:16]), text, content)


@lru_cache(64)
def _vendor(data: bytes) -> uuid.UUID:
    """A log names a handful of vendors, each many times."""
    return uuid.UUID(bytes_le=data)
