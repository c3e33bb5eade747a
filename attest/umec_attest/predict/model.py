"""The PCR values of a boot, from what is booted: what firmware and stub will measure, and in which order."""

import contextlib
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.pe import parse_pe
from umec_attest.predict.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, first_signature, variable_data

__all__ = [
    "SEPARATOR",
    "UKI_SECTIONS",
    "NodeImage",
    "PredictedPcrs",
    "extend_all",
    "predict_boot_applications",
    "predict_image",
    "predict_secure_boot",
    "predict_uki",
]

SEPARATOR: Final = bytes(4)
UKI_SECTIONS: Final = (".linux", ".osrel", ".cmdline", ".initrd")
"""In the order in which the stub measures them."""

_CALLING: Final = b"Calling EFI Application from Boot Option"
_EXIT_INVOKED: Final = b"Exit Boot Services Invocation"
_EXIT_DONE: Final = b"Exit Boot Services Returned with Success"
_QUIET_PCRS: Final = (1, 2, 3, 6)
"""Measured into by this firmware with nothing but the separator."""
_UNTOUCHED_PCRS: Final = (9, 12, 14)


@dataclass(frozen=True, slots=True)
class NodeImage:
    """The files of a node image: `variables` holds SecureBoot, PK, KEK, db and dbx."""

    firmware: bytes
    firmware_version: str
    variables: Mapping[str, bytes]
    uki: bytes


@dataclass(frozen=True, slots=True)
class PredictedPcrs:
    """The SHA-256 bank after a boot, and the SHA-256 of the image that it is about."""

    pcrs: Mapping[int, bytes]
    subject_sha256: str


def extend_all(digests: Iterable[bytes]) -> bytes:
    """Return a PCR of the SHA-256 bank that was extended with these digests from zero."""
    value = bytes(32)
    for digest in digests:
        value = _sha256(value + digest)
    return value


def predict_image(image: NodeImage) -> PredictedPcrs:
    """Return the PCR values that a boot of this image gives.

    Errors: `ImageFolderInvalid`.
    """
    pcrs = dict.fromkeys(_UNTOUCHED_PCRS, bytes(32)) | dict.fromkeys(_QUIET_PCRS, extend_all([_sha256(SEPARATOR)]))
    version = image.firmware_version.encode("utf-16-le") + b"\0\0"
    pcrs[0] = extend_all([_sha256(version), _sha256(image.firmware), _sha256(SEPARATOR)])
    pcrs[4] = predict_boot_applications(_boot_applications(image.uki))
    pcrs[5] = extend_all(_sha256(text) for text in (SEPARATOR, _EXIT_INVOKED, _EXIT_DONE))
    pcrs[7] = predict_secure_boot(_configuration(image.variables), _authorities(image.variables))
    pcrs[11] = predict_uki(image.uki)
    return PredictedPcrs(dict(sorted(pcrs.items())), hashlib.sha256(image.uki).hexdigest())


def predict_secure_boot(configuration: Sequence[bytes], authorities: Sequence[bytes]) -> bytes:
    """Return PCR 7: Secure Boot variables (each UEFI_VARIABLE_DATA), separator, what images were verified with."""
    return extend_all(_sha256(data) for data in (*configuration, SEPARATOR, *authorities))


def predict_boot_applications(digests: Sequence[bytes]) -> bytes:
    """Return PCR 4: the boot manager's call, the separator, the Authenticode digests of what it started, in order."""
    return extend_all([_sha256(_CALLING), _sha256(SEPARATOR), *digests])


def predict_uki(uki: bytes) -> bytes:
    """Return PCR 11: for each section its name (with a NUL) and its content."""
    image = parse_pe(uki, what="uki.efi")
    digests: list[bytes] = []
    for name in UKI_SECTIONS:
        content = image.section(name)
        if content is None:
            raise ImageFolderInvalid(f"uki.efi has no section {name}")
        digests += [_sha256(name.encode() + b"\0"), _sha256(content)]
    return extend_all(digests)


def _boot_applications(uki: bytes) -> list[bytes]:
    """The image, and the kernel in it where that is an EFI application itself."""
    image = parse_pe(uki, what="uki.efi")
    digests = [image.authenticode_sha256()]
    kernel = image.section(".linux") or b""
    with contextlib.suppress(ImageFolderInvalid):  # no EFI application: nothing starts it as one
        digests.append(parse_pe(kernel, what=".linux").authenticode_sha256())
    return digests


def _configuration(variables: Mapping[str, bytes]) -> list[bytes]:
    missing = [name for _, name in _VARIABLES if name not in variables]
    if missing:
        raise ImageFolderInvalid(f"variables are missing: {', '.join(missing)}")
    return [variable_data(vendor, name, variables[name]) for vendor, name in _VARIABLES]


def _authorities(variables: Mapping[str, bytes]) -> list[bytes]:
    if variables["SecureBoot"] != b"\x01":
        return []
    database = variables["db"]
    signature = first_signature(database)
    return [variable_data(IMAGE_SECURITY_DATABASE, "db", database if signature is None else signature)]


_VARIABLES: Final[tuple[tuple[uuid.UUID, str], ...]] = (
    (GLOBAL_VARIABLE, "SecureBoot"),
    (GLOBAL_VARIABLE, "PK"),
    (GLOBAL_VARIABLE, "KEK"),
    (IMAGE_SECURITY_DATABASE, "db"),
    (IMAGE_SECURITY_DATABASE, "dbx"),
)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
