"""Which bytes of a boot log's event data the digests cover, and where they have to.

A log says much that nothing proves: types, names of files, addresses of tables. Over some 90 real logs, though, these
events always hash their data, or a part of it that can be told: separators, actions, Secure Boot's variables, the GPT,
boot variables (all, or their content), authorities that are UEFI variables, the CRTM's version, and what GRUB says that
it does. One that does not was changed after it was measured.
"""

import uuid
from collections.abc import Iterator
from typing import Final

from umec_attest.bootlog.efi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, parse_variable
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

__all__ = ["check_coverage", "covered_part"]

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
_SHIM: Final = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23")
_VENDORS: Final = frozenset(vendor.bytes_le for vendor in (GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, _SHIM))
_LABELS: Final = (b"grub_cmd: ", b"kernel_cmdline: ")
"""What GRUB writes in front of the text that it hashes; the text ends with a NUL that it does not hash."""


def covered_part(event: RawEvent, algorithm: HashAlgorithm) -> slice | None:
    """Return which part of an event's data hashes to its digest of that bank, where it has to; else None."""
    digest = event.digest(algorithm)
    return next((part for part in _parts(event) if algorithm.digest(event.data[part]) == digest), None)


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
        elif _has_to_be_covered(event):
            raise BootLogDataMismatch(f"{type_name(event.type)} of PCR {event.pcr}: its digest is not of its data")
    return covered


def _parts(event: RawEvent) -> Iterator[slice]:
    data = event.data
    if not _has_to_be_covered(event):  # it may be by chance, and change without a trace
        return
    if event.type == EV_IPL:
        yield slice(len(_label(data)), len(data) - data.endswith(b"\0"))
        return
    yield slice(0, len(data))
    if event.type == EV_EFI_VARIABLE_BOOT and (variable := parse_variable(data)) is not None:
        yield slice(len(data) - len(variable.data), len(data))


def _has_to_be_covered(event: RawEvent) -> bool:
    if event.type == EV_EFI_VARIABLE_AUTHORITY:  # else it is no variable: a certificate alone, of older firmware
        return event.data[:16] in _VENDORS or parse_variable(event.data) is not None
    return event.type in _WHOLE or (event.type == EV_IPL and bool(_label(event.data)))


def _label(data: bytes) -> bytes:
    return next((label for label in _LABELS if data.startswith(label)), b"")
