"""Replay: the PCR values that a log's digests give, and their comparison with a verified quote.

1. a log of PCRs, in a bank that anybody believes
2. not empty
3. each quoted bank: the values that the firmware's log gives, and
4. those that userspace's log makes of them, are the quoted ones; or they are with the one quirk that is told apart here
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.parse import RawBootLog, RawEvent
from umec_attest.bootlog.userspace import UserspaceRecord, follow
from umec_attest.errors import (
    BootLogEmpty,
    BootLogInvalid,
    BootLogOtherRegisters,
    BootLogReplayMismatch,
    BootLogSha1Only,
)
from umec_attest.quote import UnanchoredQuote, VerifiedQuote
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = [
    "EXIT_BOOT_SERVICES",
    "FIRMWARE_PCRS",
    "ReplayedLog",
    "replay",
    "startup_locality",
    "verify_boot_log",
    "with_exit_boot_services",
]

FIRMWARE_PCRS: Final = frozenset(range(8))
"""PCRs that the firmware measures into on every boot: a log that is silent about one of them was cut."""
_RUNTIME_PCR: Final = 10
"""IMA's: the kernel extends it after the boot log ended, and has a list of its own."""

_LAST_STATIC_PCR: Final = 15
"""16 to 23 can be reset while the platform runs: a boot does not measure into them."""

_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_LOCALITIES: Final = frozenset({0, 3, 4})
"""Localities from which TPM2_Startup can be sent; 4 means that an H-CRTM measured first (Part 1, 34.2)."""


_EXIT_PCR: Final = 5
EXIT_BOOT_SERVICES: Final = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
"""What firmware measures when the kernel takes over; some measures it when its log is closed already."""

_Values = Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class ReplayedLog:
    """The events of those PCRs whose replay equals a verified quote, in one bank. Only `verify_boot_log` makes one.

    `findings` are what was odd about the form or the replay of a log that holds: nobody may trust the node without
    looking at them, so `extract_facts` passes them on. `locality` is where the TPM was started from. `userspace` are
    the records of quoted PCRs up to the quote.
    """

    algorithm: HashAlgorithm
    events: tuple[RawEvent, ...]
    pcrs: Mapping[int, bytes]
    findings: tuple[Finding, ...] = ()
    locality: int = 0
    userspace: tuple[UserspaceRecord, ...] = ()


def startup_locality(raw: RawBootLog) -> int:
    """Return the locality that the TPM was started from: 0 if the log says nothing.

    Errors: `BootLogInvalid` for a StartupLocality that is repeated, late or impossible.
    """
    locality: int | None = None
    measured = False
    for event in raw.events:
        if event.type != EV_NO_ACTION:
            measured = measured or event.pcr == 0
        elif event.data.startswith(_STARTUP_LOCALITY):
            if locality is not None or measured:
                raise BootLogInvalid("StartupLocality is repeated, or comes after the first measurement of PCR 0")
            locality = _locality(event)
    return locality or 0


def replay(raw: RawBootLog, algorithm: HashAlgorithm) -> Mapping[int, bytes]:
    """Return the value of each PCR that the log measures into.

    Errors: `BootLogInvalid` for a bank that an event has no digest for, and those of `startup_locality`.
    """
    zero, construct = bytes(algorithm.digest_size), algorithm.constructor
    first = zero[1:] + bytes([startup_locality(raw)])
    values: dict[int, bytes] = {}
    for event in raw.events:
        if event.type == EV_NO_ACTION:
            continue
        digest = event.digest(algorithm)
        if digest is None:
            raise BootLogInvalid(f"an event of PCR {event.pcr} has no {algorithm.label} digest")
        before = values.get(event.pcr, zero if event.pcr else first)
        values[event.pcr] = construct(before + digest).digest()
    return MappingProxyType(values)


def with_exit_boot_services(values: _Values, algorithm: HashAlgorithm) -> _Values:
    """Return replayed values as they are where the firmware did not log the end of boot services."""
    value = values.get(_EXIT_PCR, bytes(algorithm.digest_size))
    for action in EXIT_BOOT_SERVICES:
        value = algorithm.digest(value + algorithm.digest(action))
    return MappingProxyType({**values, _EXIT_PCR: value})


def verify_boot_log(
    raw: RawBootLog, quote: VerifiedQuote | UnanchoredQuote, userspace: Sequence[UserspaceRecord] = ()
) -> ReplayedLog:
    """Return the log's events for the quoted PCRs if their replay gives the quoted values.

    The strongest bank that the quote has is used, and every other quoted bank must replay as well. Each quoted firmware
    PCR (0-7) must be in the log, and each other one up to 15, except IMA's, must be in the log or untouched. Events of
    PCRs that were not quoted are dropped: nothing proves them. `userspace` are the records of systemd's log, which go
    on where the firmware's log ends; those after the quote are dropped, too.
    Errors: `BootLogSha1Only`, `BootLogOtherRegisters`, `BootLogEmpty`, `BootLogInvalid`, `BootLogReplayMismatch`,
    `UserspaceLogInvalid`.
    """
    if raw.algorithms == (HashAlgorithm.SHA1,):  # 1
        raise BootLogSha1Only("the log has SHA-1 digests only, which prove nothing")
    if raw.format != "crypto-agile":
        raise BootLogOtherRegisters(f"a log of the format {raw.format} cannot prove the PCRs of a TPM 2.0")
    if not any(event.type != EV_NO_ACTION for event in raw.events):  # 2
        raise BootLogEmpty("the boot log measures nothing")
    logged = {algorithm: replay(raw, algorithm) for algorithm in quote.pcrs}  # 3
    findings = raw.findings
    count = _reach(logged, quote.pcrs, userspace)  # 4
    if count is None:
        quirk = {algorithm: with_exit_boot_services(values, algorithm) for algorithm, values in logged.items()}
        count = _reach(quirk, quote.pcrs, userspace)
        if count is None:
            raise _mismatch(logged, quote.pcrs)
        detail = f"PCR {_EXIT_PCR}: the end of boot services was measured, and the log does not tell it"
        findings = (*findings, Finding("exit-boot-services-missing", detail))
    strongest = max(quote.pcrs, key=lambda algorithm: algorithm.digest_size)
    quoted = quote.pcrs[strongest]
    events = tuple(event for event in raw.events if event.type != EV_NO_ACTION and event.pcr in quoted)
    records = tuple(record for record in userspace[:count] if record.pcr in quoted)
    return ReplayedLog(strongest, events, quoted, findings, startup_locality(raw), records)


def _reach(
    logged: Mapping[HashAlgorithm, _Values], quoted: Mapping[HashAlgorithm, _Values], records: Sequence[UserspaceRecord]
) -> int | None:
    """Return how many records lead from what firmware logged to the quoted values, or None."""
    start = {algorithm: _expected(logged[algorithm], pcrs, algorithm) for algorithm, pcrs in quoted.items()}
    goal = {algorithm: {pcr: quoted[algorithm][pcr] for pcr in pcrs} for algorithm, pcrs in start.items()}
    return follow(records, start, goal)


def _expected(logged: _Values, quoted: _Values, algorithm: HashAlgorithm) -> _Values:
    """Return what the quoted PCRs should hold when the log ends; those that it has nothing to do with are left out."""
    expected: dict[int, bytes] = {}
    for pcr in quoted:
        if pcr == _RUNTIME_PCR:
            continue
        if pcr in logged:
            expected[pcr] = logged[pcr]
        elif pcr in FIRMWARE_PCRS:
            raise BootLogReplayMismatch(f"the log says nothing about PCR {pcr}: it was cut")
        elif pcr <= _LAST_STATIC_PCR:
            expected[pcr] = bytes(algorithm.digest_size)
    return expected


def _mismatch(
    logged: Mapping[HashAlgorithm, _Values], quoted: Mapping[HashAlgorithm, _Values]
) -> BootLogReplayMismatch:
    """Return the error that names the first PCR that the firmware's log does not explain."""
    algorithm, pcr, found = next(
        (algorithm, pcr, value)
        for algorithm, pcrs in quoted.items()
        for pcr, value in _expected(logged[algorithm], pcrs, algorithm).items()
        if value != pcrs[pcr]
    )
    return BootLogReplayMismatch(
        f"PCR {pcr} ({algorithm.label}): the log gives {found.hex()}, the TPM signed {quoted[algorithm][pcr].hex()}",
        advice="Something was measured that the log does not tell, or the log is of another boot.",
    )


def _locality(event: RawEvent) -> int:
    body = event.data[len(_STARTUP_LOCALITY) :]
    if event.pcr != 0 or len(body) != 1 or body[0] not in _LOCALITIES:
        raise BootLogInvalid("StartupLocality of another PCR, of a wrong size or of an impossible locality")
    return body[0]
