"""The PCR values of a real boot: EDK II firmware with Secure Boot, systemd-stub, Linux.

What this expects is in docs/measured-boot.md, PCR by PCR. Secure Boot has to be on: without it the firmware measures
the kernel in the image as an application of its own, and anything else would boot as well.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.measure import (
    PredictedPcrs,
    boot_applications,
    configuration,
    secure_boot,
    values_of,
)
from umec_attest.predict.signer import authority
from umec_attest.predict.stub import kernel, read_uki, sections
from umec_attest.predict.uefi import IMAGE_SECURITY_DATABASE, variable_data
from umec_attest.reference import Stage

__all__ = ["IGNORED", "UNTOUCHED", "RealImage", "predict_real"]

IGNORED: Final = MappingProxyType(
    {
        1: "boot entries and settings of the firmware; what is started is in PCR 4, with what keys in PCR 7",
        5: "the partition table; what is started from the disk is in PCR 4, 9 and 11",
    }
)
UNTOUCHED: Final = (8, 12, 13, 14, 15)
"""Of GRUB, of the stub for command lines, credentials and extensions, of shim, of systemd for volumes: none is here."""


@dataclass(frozen=True, slots=True)
class RealImage:
    """What decides the boot of a built node image. `models` are the firmware builds that may boot it."""

    variables: Mapping[str, bytes]
    uki: bytes
    models: Mapping[str, Mapping[int, bytes]]


def predict_real(image: RealImage) -> PredictedPcrs:
    """Return the PCR values that a boot of this image gives. Errors: `ImageFolderInvalid`."""
    configured = configuration(image.variables)
    if image.variables["SecureBoot"] != b"\x01":
        raise ImageFolderInvalid("Secure Boot is off: anything could be booted beside this image")
    uki = read_uki(image.uki)
    verified_with = variable_data(IMAGE_SECURITY_DATABASE, "db", authority(uki.image, image.variables["db"]))
    digests = {name: hashlib.sha256(content).digest() for name, content in uki.sections.items()}
    command_line = uki.sections[".cmdline"].decode("ascii")
    stages = {pcr: list[Stage]() for pcr in UNTOUCHED} | {
        4: boot_applications([uki.image.authenticode_sha256()]),
        7: secure_boot(configured, [verified_with]),
        9: kernel(uki.sections[".linux"], command_line, digests[".initrd"]),
        11: sections(digests),
    }
    subject = hashlib.sha256(image.uki).hexdigest()
    return PredictedPcrs(dict(sorted(values_of(stages).items())), subject, image.models, IGNORED, stages)
