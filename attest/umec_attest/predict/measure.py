"""PCRs of the SHA-256 bank, and what firmware of every kind measures into them."""

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, variable_data

__all__ = [
    "EXIT_BOOT_SERVICES",
    "SEPARATOR",
    "PredictedPcrs",
    "configuration",
    "extend_all",
    "predict_boot_applications",
    "predict_secure_boot",
]

SEPARATOR: Final = bytes(4)
EXIT_BOOT_SERVICES: Final = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")

_CALLING: Final = b"Calling EFI Application from Boot Option"
_VARIABLES: Final[tuple[tuple[uuid.UUID, str], ...]] = (
    (GLOBAL_VARIABLE, "SecureBoot"),
    (GLOBAL_VARIABLE, "PK"),
    (GLOBAL_VARIABLE, "KEK"),
    (IMAGE_SECURITY_DATABASE, "db"),
    (IMAGE_SECURITY_DATABASE, "dbx"),
)
"""In the order in which they are measured (firmware profile, 3.3.4.8)."""


@dataclass(frozen=True, slots=True)
class PredictedPcrs:
    """The SHA-256 bank after a boot, and the SHA-256 of the image that it is about.

    `models` has, for each firmware build that may boot it, the PCRs that its firmware alone decides; `ignored` has the
    PCRs of which nothing can be said, and why.
    """

    pcrs: Mapping[int, bytes]
    subject_sha256: str
    models: Mapping[str, Mapping[int, bytes]] = field(default_factory=lambda: MappingProxyType({}))
    ignored: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))


def extend_all(digests: Iterable[bytes]) -> bytes:
    """Return a PCR of the SHA-256 bank that was extended with these digests from zero."""
    value = bytes(32)
    for digest in digests:
        value = _sha256(value + digest)
    return value


def predict_secure_boot(configured: Sequence[bytes], authorities: Sequence[bytes]) -> bytes:
    """Return PCR 7: Secure Boot variables (each UEFI_VARIABLE_DATA), separator, what images were verified with."""
    return extend_all(_sha256(data) for data in (*configured, SEPARATOR, *authorities))


def predict_boot_applications(digests: Sequence[bytes]) -> bytes:
    """Return PCR 4: the boot manager's call, the separator, the Authenticode digests of what it started, in order."""
    return extend_all([_sha256(_CALLING), _sha256(SEPARATOR), *digests])


def configuration(variables: Mapping[str, bytes]) -> list[bytes]:
    """Return the UEFI_VARIABLE_DATA of each Secure Boot variable, in order. Errors: `ImageFolderInvalid`."""
    missing = [name for _, name in _VARIABLES if name not in variables]
    if missing:
        raise ImageFolderInvalid(f"variables are missing: {', '.join(missing)}")
    return [variable_data(vendor, name, variables[name]) for vendor, name in _VARIABLES]


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
