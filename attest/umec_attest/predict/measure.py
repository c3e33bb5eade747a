"""PCRs of the SHA-256 bank, and what firmware of every kind measures into them."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, variable_data
from umec_attest.reference import Stage, Stages, extend_all

__all__ = [
    "EXIT_BOOT_SERVICES",
    "SEPARATOR",
    "PredictedPcrs",
    "boot_applications",
    "configuration",
    "extend_all",
    "secure_boot",
    "values_of",
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
    PCRs of which nothing can be said, and why; `stages` what is measured, where it is known stage by stage.
    """

    pcrs: Mapping[int, bytes]
    subject_sha256: str
    models: Mapping[str, Mapping[int, bytes]] = field(default_factory=lambda: MappingProxyType({}))
    ignored: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    stages: Stages = field(default_factory=lambda: MappingProxyType({}))


def values_of(stages: Stages) -> dict[int, bytes]:
    """Return the values that PCRs have after these stages."""
    return {pcr: extend_all(stage.digest for stage in listed) for pcr, listed in stages.items()}


def secure_boot(configured: Sequence[bytes], authorities: Sequence[bytes]) -> list[Stage]:
    """Return PCR 7: Secure Boot variables (each UEFI_VARIABLE_DATA), separator, what images were verified with."""
    named = [(name, data) for (_, name), data in zip(_VARIABLES, configured, strict=True)]
    named += [("separator", SEPARATOR), *(("signer of the kernel image", data) for data in authorities)]
    return [Stage(name, _sha256(data)) for name, data in named]


def boot_applications(digests: Sequence[bytes]) -> list[Stage]:
    """Return PCR 4: the boot manager's call, the separator, the Authenticode digests of what it started, in order."""
    called = [Stage("boot manager", _sha256(_CALLING)), Stage("separator", _sha256(SEPARATOR))]
    return [*called, *(Stage("kernel image", digest) for digest in digests)]


def configuration(variables: Mapping[str, bytes]) -> list[bytes]:
    """Return the UEFI_VARIABLE_DATA of each Secure Boot variable, in order. Errors: `ImageFolderInvalid`."""
    missing = [name for _, name in _VARIABLES if name not in variables]
    if missing:
        raise ImageFolderInvalid(f"variables are missing: {', '.join(missing)}")
    return [variable_data(vendor, name, variables[name]) for vendor, name in _VARIABLES]


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
