"""A firmware and a boot stub that measure a node image into a TPM and write the boot log, as UEFI and systemd-stub do.

It is the source of evidence: it shares no code with the prediction of reference values or the reading of boot logs.
The order is that of real machines:

1. PCR 0: firmware version and firmware; PCR 7: the Secure Boot variables
2. PCR 4: boot option chosen; a separator on PCR 0 to 7
3. PCR 7: the authority that the image was accepted by; PCR 4: the image
4. PCR 11: the image's sections, name and contents each; PCR 4: the kernel in it
5. PCR 5: boot services end
"""

import hashlib
import struct
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
from tpm2_pytss.types import TPML_DIGEST_VALUES, TPML_PCR_SELECTION, TPMT_HA, TPMU_HA

from umec_attest.testing.errors import HarnessFailed, ImageInvalid
from umec_attest.testing.eventlog import EventType, Measurement, image_load_event, serialize_log, variable_data
from umec_attest.testing.image import VARIABLES, NodeImage, Tamper, load_image, tampered
from umec_attest.testing.pe import authenticode_sha256, is_pe, section_bytes
from umec_attest.testing.swtpm import SoftwareTpm

__all__ = ["boot", "event", "extend", "measure", "measurements"]

GLOBAL_VARIABLE: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
STUB_SECTIONS: Final = (".linux", ".osrel", ".cmdline", ".initrd")
SEPARATOR: Final = bytes(4)
SEPARATED_PCRS: Final = range(8)
LIST_HEADER: Final = 28


def boot(tpm: SoftwareTpm | str, image: Path, *, log: Path | None = None, tamper: Tamper | None = None) -> bytes:
    """Measure the image folder into a TPM that was just switched on (an object or a TCTI); returns the boot log.

    `log` is also written there. Raises ImageInvalid, HarnessFailed (the PCRs are not those after a reset).
    """
    contents = load_image(image)
    if tamper is not None:
        contents = tampered(contents, tamper)
    return measure(tpm, measurements(contents), log=log)


def measure(tpm: SoftwareTpm | str, recipe: Iterable[Measurement], *, log: Path | None = None) -> bytes:
    """Measure a recipe into a TPM that was just switched on; returns the boot log that tells of it, as `boot` does."""
    made = list(recipe)
    with _opened(tpm if isinstance(tpm, str) else tpm.tcti) as esys:
        _check_reset(esys)
        for measurement in made:
            extend(esys, measurement.pcr, measurement.digest)
    written = serialize_log(made)
    if log is not None:
        log.write_bytes(written)
    return written


def extend(esys: ESAPI, pcr: int, digest: bytes) -> None:
    """Extend the SHA-256 bank of a PCR."""
    value = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=digest))
    esys.pcr_extend(ESYS_TR.PCR0 + pcr, TPML_DIGEST_VALUES([value]))


def measurements(image: NodeImage) -> Iterator[Measurement]:
    """Yield what a boot of this image measures, in order."""
    yield from _firmware(image)
    yield from _variables(image)
    yield event(4, EventType.EFI_ACTION, b"Calling EFI Application from Boot Option")
    for pcr in SEPARATED_PCRS:
        yield event(pcr, EventType.SEPARATOR, SEPARATOR)
    yield from _application(image)
    yield from _stub(image.uki)
    yield event(5, EventType.EFI_ACTION, b"Exit Boot Services Invocation")
    yield event(5, EventType.EFI_ACTION, b"Exit Boot Services Returned with Success")


def _firmware(image: NodeImage) -> Iterator[Measurement]:
    yield event(0, EventType.S_CRTM_VERSION, image.version.encode("utf-16-le") + b"\0\0")
    place = struct.pack("<QQ", 0, len(image.firmware))
    yield Measurement(0, EventType.EFI_PLATFORM_FIRMWARE_BLOB, hashlib.sha256(image.firmware).digest(), place)


def _variables(image: NodeImage) -> Iterator[Measurement]:
    for name in VARIABLES:
        vendor = IMAGE_SECURITY if name in {"db", "dbx"} else GLOBAL_VARIABLE
        yield event(7, EventType.EFI_VARIABLE_DRIVER_CONFIG, variable_data(vendor, name, image.variables[name]))


def _application(image: NodeImage) -> Iterator[Measurement]:
    if image.variables["SecureBoot"] == b"\x01":
        authority = variable_data(IMAGE_SECURITY, "db", _first_signature(image.variables["db"]))
        yield event(7, EventType.EFI_VARIABLE_AUTHORITY, authority)
    yield _loaded("\\EFI\\BOOT\\BOOTX64.EFI", image.uki)


def _stub(uki: bytes) -> Iterator[Measurement]:
    for name in STUB_SECTIONS:
        contents = section_bytes(uki, name)
        if contents is None:
            raise ImageInvalid(f"uki.efi has no section {name}")
        yield event(11, EventType.IPL, name.encode() + b"\0")
        yield Measurement(11, EventType.IPL, hashlib.sha256(contents).digest(), name.encode())
    kernel = section_bytes(uki, ".linux")
    if kernel is not None and is_pe(kernel):
        yield _loaded("\\.linux", kernel)


def _loaded(path: str, image: bytes) -> Measurement:
    event = image_load_event(path, len(image))
    return Measurement(4, EventType.EFI_BOOT_SERVICES_APPLICATION, authenticode_sha256(image), event)


def event(pcr: int, kind: EventType, data: bytes) -> Measurement:
    """Return an event whose digest is the SHA-256 of its data: an ingredient of a recipe."""
    return Measurement(pcr, kind, hashlib.sha256(data).digest(), data)


def _first_signature(db: bytes) -> bytes:
    """Return the first EFI_SIGNATURE_DATA of a signature list; everything if it is none."""
    if len(db) < LIST_HEADER:
        return db
    list_size, header_size, signature_size = struct.unpack_from("<III", db, 16)
    body = list_size - LIST_HEADER - header_size
    if not LIST_HEADER < list_size <= len(db) or signature_size < 16 or body <= 0 or body % signature_size:
        return db
    start = LIST_HEADER + header_size
    return db[start : start + signature_size]


def _opened(tcti: str) -> ESAPI:
    try:
        return ESAPI(tcti)
    except (TSS2_Exception, ValueError) as error:
        raise HarnessFailed(f"there is no TPM at this TCTI: {error}") from None


def _check_reset(esys: ESAPI) -> None:
    _, _, digests = esys.pcr_read(TPML_PCR_SELECTION.parse("sha256:0,1,2,3,4,5,7,11"))
    if any(bytes(digest) != bytes(32) for digest in digests):
        raise HarnessFailed("the TPM was not reset since the last boot", advice="switch it off and on first")
