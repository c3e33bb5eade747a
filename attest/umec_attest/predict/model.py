"""The PCR values of a simulated boot (`umec_attest.testing.firmware`): its firmware is one file, and measures all."""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.measure import (
    EXIT_BOOT_SERVICES,
    SEPARATOR,
    PredictedPcrs,
    boot_applications,
    configuration,
    extend_all,
    secure_boot,
    values_of,
)
from umec_attest.predict.pe import parse_pe
from umec_attest.predict.stub import UKI_SECTIONS, sections
from umec_attest.predict.uefi import IMAGE_SECURITY_DATABASE, first_signature, variable_data
from umec_attest.reference import Stage

__all__ = ["NodeImage", "predict_image"]

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


def predict_image(image: NodeImage) -> PredictedPcrs:
    """Return the PCR values that a boot of this image gives.

    Errors: `ImageFolderInvalid`.
    """
    pcrs = dict.fromkeys(_UNTOUCHED_PCRS, bytes(32)) | dict.fromkeys(_QUIET_PCRS, extend_all([_sha256(SEPARATOR)]))
    version = image.firmware_version.encode("utf-16-le") + b"\0\0"
    pcrs[0] = extend_all([_sha256(version), _sha256(image.firmware), _sha256(SEPARATOR)])
    pcrs[5] = extend_all(_sha256(text) for text in (SEPARATOR, *EXIT_BOOT_SERVICES))
    stages = {
        4: boot_applications(_boot_applications(image.uki)),
        7: secure_boot(configuration(image.variables), _authorities(image.variables)),
        11: _sections(image.uki),
    }
    pcrs |= values_of(stages)
    return PredictedPcrs(dict(sorted(pcrs.items())), hashlib.sha256(image.uki).hexdigest(), stages=stages)


def _sections(uki: bytes) -> list[Stage]:
    """Return PCR 11: for each section its name (with a NUL) and its content."""
    image = parse_pe(uki, what="uki.efi")
    digests: dict[str, bytes] = {}
    for name in UKI_SECTIONS:
        content = image.section(name)
        if content is None:
            raise ImageFolderInvalid(f"uki.efi has no section {name}")
        digests[name] = _sha256(content)
    return sections(digests)


def _boot_applications(uki: bytes) -> list[bytes]:
    """The image, and the kernel in it where that is an EFI application itself."""
    image = parse_pe(uki, what="uki.efi")
    digests = [image.authenticode_sha256()]
    kernel = image.section(".linux") or b""
    with contextlib.suppress(ImageFolderInvalid):  # no EFI application: nothing starts it as one
        digests.append(parse_pe(kernel, what=".linux").authenticode_sha256())
    return digests


def _authorities(variables: Mapping[str, bytes]) -> list[bytes]:
    if variables["SecureBoot"] != b"\x01":
        return []
    database = variables["db"]
    signature = first_signature(database)
    return [variable_data(IMAGE_SECURITY_DATABASE, "db", database if signature is None else signature)]


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
