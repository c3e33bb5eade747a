"""The bytes of a boot log, strictly and under limits (firmware profile, 10.2).

A crypto-agile log begins with one TCG_PCClientPCREvent that holds a TCG_EfiSpecIDEvent ("Spec ID Event03"), and goes on
with TCG_PCR_EVENT2. A log of the older format has TCG_PCClientPCREvents only, with SHA-1 digests: it can be shown, and
no policy will ever believe it, because no SHA-1 bank is. A log of confidential computing (UEFI 2.10, 38.2) is
crypto-agile too, but its index counts measurement registers, not PCRs; it lies in an area of a fixed size, whose rest
is padding.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.bootlog.findings import Finding
from umec_attest.errors import (
    BootLogEmpty,
    BootLogInvalid,
    BootLogPadded,
    BootLogTooLarge,
    BootLogVendorInfoSize,
)
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PCR_COUNT

__all__ = ["LOG_PADDED", "MAX_EVENTS", "MAX_LOG_SIZE", "RawBootLog", "RawEvent", "parse_boot_log"]

MAX_LOG_SIZE: Final = 1024 * 1024
"""Firmware reserves 64 to 256 KiB; the largest real log that we know has 104 KiB."""
MAX_EVENTS: Final = 4096
"""Real logs have 30 to 250 events."""

LOG_PADDED: Final = "log-padded"
VENDOR_INFO_SIZE: Final = "spec-id-vendor-info-size"

_SPEC_ID_03: Final = b"Spec ID Event03\0"
_SPEC_ID_SIZE: Final = 16
_PADDING: Final = b"\xff"
_HEAD: Final = struct.Struct("<III")
_ALGORITHMS: Final = {int(algorithm): algorithm for algorithm in HashAlgorithm}


@dataclass(frozen=True, slots=True)
class RawEvent:
    """An event as the log has it. `pcr` is below 24 unless it is EV_NO_ACTION; `digests` has a hash at most once."""

    pcr: int
    type: int
    digests: tuple[tuple[HashAlgorithm, bytes], ...]
    data: bytes

    def digest(self, algorithm: HashAlgorithm) -> bytes | None:
        """Return the digest for a bank, or None if the event has none for it."""
        for found, digest in self.digests:
            if found is algorithm:
                return digest
        return None


@dataclass(frozen=True, slots=True)
class RawBootLog:
    """A well-formed log; nothing in it is believed before it was replayed.

    `findings` are the irregularities of its form that the caller allowed, and that it has.
    """

    format: Literal["crypto-agile", "confidential-computing", "sha1"]
    algorithms: tuple[HashAlgorithm, ...]
    events: tuple[RawEvent, ...]
    findings: tuple[Finding, ...] = ()


class _Reader:
    """Reads little-endian fields; every read is checked against the end."""

    __slots__ = ("_data", "_size", "_what", "offset", "padding")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._size = len(data)
        self._what = what
        self.offset = 0
        self.padding = len(data.rstrip(_PADDING))

    def fail(self, why: str) -> BootLogInvalid:
        return BootLogInvalid(f"{self._what}, offset {self.offset}: {why}")

    @property
    def left(self) -> int:
        return self._size - self.offset

    def take(self, size: int) -> bytes:
        start = self.offset
        end = start + size
        if end > self._size:
            raise self.fail(f"{size} bytes expected, {self.left} left")
        self.offset = end
        return self._data[start:end]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def head(self) -> tuple[int, int, int]:
        """Return three 32-bit numbers, which every event begins with."""
        return _HEAD.unpack(self.take(_HEAD.size))


def parse_boot_log(data: bytes, *, allow: Collection[str] = ()) -> RawBootLog:
    """Parse a boot log.

    `allow` names irregularities of the form that are let pass and become findings: `LOG_PADDED`, where the caller knows
    that it read the whole area of a CCEL table, and "spec-id-vendor-info-size", a quirk of some firmware.
    Errors: `BootLogEmpty`, `BootLogTooLarge`, `BootLogPadded`, `BootLogVendorInfoSize`, `BootLogInvalid`. Trailing
    bytes are refused.
    """
    if len(data) > MAX_LOG_SIZE:
        raise BootLogTooLarge(f"a log of {len(data)} bytes is beyond the limit of {MAX_LOG_SIZE}")
    if not data:
        raise BootLogEmpty("the boot log is empty")
    reader = _Reader(bytes(data), "boot log")
    first = _read_old_event(reader)
    if first.type != EV_NO_ACTION or not first.data.startswith(_SPEC_ID_03):
        events = (first, *_read_old_events(reader))
        return RawBootLog("sha1", (HashAlgorithm.SHA1,), events)
    findings: list[Finding] = []
    spec_id = _Reader(first.data, "Spec ID event")
    sizes = _parse_spec_id(first, spec_id)
    if _skip_vendor_info(spec_id, reader, allowed=VENDOR_INFO_SIZE in allow):
        findings.append(Finding(VENDOR_INFO_SIZE, "the Spec ID event does not count its vendorInfo"))
    kind: Literal["crypto-agile", "confidential-computing"] = (
        "crypto-agile" if first.pcr == 0 else "confidential-computing"
    )
    events = tuple(_read_events(reader, sizes))
    if reader.left:
        if kind == "crypto-agile" or LOG_PADDED not in allow:
            raise BootLogPadded(f"the log ends at offset {reader.offset}; {reader.left} bytes of padding follow")
        findings.append(Finding(LOG_PADDED, f"{reader.left} bytes of padding follow the log"))
    return RawBootLog(kind, tuple(sizes), events, tuple(findings))


def _read_old_events(reader: _Reader) -> Iterator[RawEvent]:
    count = 0
    while reader.left:
        count = _count(reader, count)
        yield _read_old_event(reader)


def _read_events(reader: _Reader, sizes: dict[HashAlgorithm, int]) -> Iterator[RawEvent]:
    """Yield events up to the end, or to padding, which no event begins with: there is no such PCR."""
    count = 0
    while reader.offset < reader.padding:
        count = _count(reader, count)
        yield _read_event(reader, sizes)


def _count(reader: _Reader, count: int) -> int:
    if count >= MAX_EVENTS:
        raise BootLogTooLarge(f"more than {MAX_EVENTS} events by offset {reader.offset}")
    return count + 1


def _read_old_event(reader: _Reader) -> RawEvent:
    """TCG_PCClientPCREvent."""
    pcr, kind, digest = reader.number(4), reader.number(4), reader.take(HashAlgorithm.SHA1.digest_size)
    event = RawEvent(pcr, kind, ((HashAlgorithm.SHA1, digest),), reader.take(reader.number(4)))
    return _checked(reader, event, agile=False)


def _read_event(reader: _Reader, sizes: dict[HashAlgorithm, int]) -> RawEvent:
    """TCG_PCR_EVENT2."""
    pcr, kind, count = reader.head()
    if count < 1:
        raise reader.fail("an event without a digest")
    digests: dict[HashAlgorithm, bytes] = {}
    for _ in range(count):
        algorithm = _algorithm(reader, reader.number(2))
        if algorithm in digests or algorithm not in sizes:
            raise reader.fail(f"the {algorithm.label} digest is repeated or was not announced")
        digests[algorithm] = reader.take(sizes[algorithm])
    return _checked(reader, RawEvent(pcr, kind, tuple(digests.items()), reader.take(reader.number(4))), agile=True)


def _checked(reader: _Reader, event: RawEvent, *, agile: bool) -> RawEvent:
    if event.type == EV_NO_ACTION:
        if agile and any(any(digest) for _, digest in event.digests):
            raise reader.fail("EV_NO_ACTION with a digest: it would hide a measurement")
    elif event.pcr >= PCR_COUNT:
        raise reader.fail(f"there is no PCR {event.pcr}")
    return event


def _algorithm(reader: _Reader, identifier: int) -> HashAlgorithm:
    algorithm = _ALGORITHMS.get(identifier)
    if algorithm is None:
        raise reader.fail(f"unknown hash algorithm 0x{identifier:04x}")
    return algorithm


def _parse_spec_id(event: RawEvent, reader: _Reader) -> dict[HashAlgorithm, int]:
    """Return the announced algorithms with their digest sizes (TCG_EfiSpecIDEvent, 10.4.5.1), up to vendorInfo."""
    if event.pcr not in (0, 1):
        raise reader.fail("the Spec ID event belongs to PCR 0, or to register 1 in a log of confidential computing")
    if any(any(digest) for _, digest in event.digests):
        raise reader.fail("the Spec ID event has a digest")
    reader.take(_SPEC_ID_SIZE)
    reader.number(4)  # platformClass: client or server, both speak this format
    minor, major, _errata = reader.number(1), reader.number(1), reader.number(1)
    if (major, minor) != (2, 0):
        raise reader.fail(f"version {major}.{minor} of the format, 2.0 expected")
    if reader.number(1) not in (1, 2):
        raise reader.fail("uintnSize must be 1 or 2")
    count = reader.number(4)
    if count < 1:
        raise reader.fail("the log announces no algorithm")
    sizes: dict[HashAlgorithm, int] = {}
    for _ in range(count):
        algorithm, size = _algorithm(reader, reader.number(2)), reader.number(2)
        if algorithm in sizes or size != algorithm.digest_size:
            raise reader.fail(f"{algorithm.label} is repeated, or its digest size {size} is wrong")
        sizes[algorithm] = size
    return sizes


def _skip_vendor_info(spec_id: _Reader, log: _Reader, *, allowed: bool) -> bool:
    """Skip vendorInfo, which is opaque and in no digest; tell whether it lay behind the event instead of in it."""
    size = spec_id.number(1)
    behind = size > 0 and not spec_id.left
    if behind and not allowed:
        raise BootLogVendorInfoSize(f"the Spec ID event ends before its {size} bytes of vendorInfo")
    (log if behind else spec_id).take(size)
    if spec_id.left:
        raise spec_id.fail(f"{spec_id.left} bytes too many")
    return behind
