"""Which bytes of a boot log's event data the digests cover, and where they have to.

A log says much that nothing proves: types, names of files, addresses of tables. Over some 90 real logs, though, these
events always hash their data, or a part of it that can be told: separators, actions, Secure Boot's variables, the GPT,
boot variables (all, or their content), authorities that are UEFI variables (older shims hash some bytes too many), the
CRTM's version, and what GRUB says that it does. One that does not was changed after it was measured.
"""

from typing import Final

from umec_attest.bootlog.efi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK, parse_variable
from umec_attest.bootlog.event_types import (
    EV_ACTION,
    EV_EFI_ACTION,
    EV_EFI_GPT_EVENT,
    EV_EFI_VARIABLE_AUTHORITY,
    EV_EFI_VARIABLE_BOOT,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_IPL,
    EV_S_CRTM_VERSION,
    EV_SEPARATOR,
    type_name,
)
from umec_attest.bootlog.parse import RawEvent
from umec_attest.bootlog.replay import ReplayedLog
from umec_attest.errors import BootLogDataMismatch
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["SHIM_SURPLUS", "check_coverage", "coverable_parts", "covered_part"]

_WHOLE: Final = frozenset(
    {
        EV_ACTION,
        EV_EFI_ACTION,
        EV_EFI_GPT_EVENT,
        EV_EFI_VARIABLE_BOOT,
        EV_EFI_VARIABLE_DRIVER_CONFIG,
        EV_SEPARATOR,
        EV_S_CRTM_VERSION,
    }
)
SHIM_SURPLUS: Final = 5
"""Bytes that older shims hash behind the variable that an image was verified with; they log another one."""
_VENDORS: Final = frozenset(vendor.bytes_le for vendor in (GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK))
_RED_HAT_COMMAND: Final = b"grub_cmd "
_LABELS: Final = (
    b"grub_cmd: ",
    b"kernel_cmdline: ",
    b"module_cmdline: ",
    _RED_HAT_COMMAND,
    b"grub_kernel_cmdline ",
)
"""What GRUB writes in front of the text that it hashes. The text ends with a NUL, which it hashes with Red Hat's
commands only."""


def coverable_parts(event: RawEvent) -> tuple[slice, ...]:
    """Return the parts of an event's data one of which its digest has to be of; none where that is not known.

    Where none is known a digest may be of the data by chance, and both change without a trace.
    """
    data = event.data
    whole = slice(0, len(data))
    if event.type == EV_IPL:
        label = next((label for label in _LABELS if data.startswith(label)), None)
        if label is None:
            return ()
        hashes_nul = label == _RED_HAT_COMMAND
        return (slice(len(label), len(data) - (data.endswith(b"\0") and not hashes_nul)),)
    if event.type == EV_EFI_VARIABLE_BOOT and (variable := parse_variable(data)) is not None:
        return whole, slice(len(data) - len(variable.data), len(data))
    if event.type == EV_EFI_VARIABLE_AUTHORITY:
        return _parts_of_authority(data)
    return (whole,) if event.type in _WHOLE else ()


def _parts_of_authority(data: bytes) -> tuple[slice, ...]:
    if parse_variable(data[: -SHIM_SURPLUS - 1]) is not None:
        return slice(0, len(data)), slice(0, len(data) - 1)
    if data[:16] in _VENDORS or parse_variable(data) is not None:
        return (slice(0, len(data)),)
    return ()  # a certificate alone, of older firmware


def covered_part(event: RawEvent, algorithm: HashAlgorithm) -> slice | None:
    """Return which part of an event's data hashes to its digest of that bank, where it has to; else None."""
    digest = event.digest(algorithm)
    for part in coverable_parts(event):
        if algorithm.digest(event.data[part]) == digest:
            return part
    return None


def check_coverage(log: ReplayedLog) -> int:
    """Return how many bytes of event data the digests of a replayed log cover.

    Every digest of an event has to be of the same bytes, those of banks that were not quoted too. Errors:
    `BootLogDataMismatch` where an event's data is not what was measured.
    """
    covered = 0
    for event in log.events:
        part = covered_part(event, log.algorithm)
        if part is not None:
            data = event.data[part]
            if any(algorithm.digest(data) != digest for algorithm, digest in event.digests):
                raise BootLogDataMismatch(f"{type_name(event.type)} of PCR {event.pcr}: its digests are of other data")
            covered += len(data)
        elif coverable_parts(event):
            raise BootLogDataMismatch(f"{type_name(event.type)} of PCR {event.pcr}: its digest is not of its data")
    return covered
