"""Replay: the PCR values that a log's digests give, and their comparison with a verified quote."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.bootlog.parse import RawBootLog, RawEvent
from umec_attest.errors import BootLogEmpty, BootLogInvalid, BootLogReplayMismatch
from umec_attest.quote import UnanchoredQuote, VerifiedQuote
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["FIRMWARE_PCRS", "ReplayedLog", "replay", "verify_boot_log"]

FIRMWARE_PCRS: Final = frozenset(range(8))
"""PCRs that the firmware measures into on every boot: a log that is silent about one of them was cut."""
_RUNTIME_PCR: Final = 10
"""IMA's: the kernel extends it after the boot log ended, and has a list of its own."""

_LAST_STATIC_PCR: Final = 15
"""16 to 23 can be reset while the platform runs: a boot does not measure into them."""

_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_LOCALITIES: Final = frozenset({0, 3, 4})
"""Localities from which TPM2_Startup can be sent; 4 means that an H-CRTM measured first (Part 1, 34.2)."""


@dataclass(frozen=True, slots=True)
class ReplayedLog:
    """The events of those PCRs whose replay equals a verified quote, in one bank. Only `verify_boot_log` makes one."""

    algorithm: HashAlgorithm
    events: tuple[RawEvent, ...]
    pcrs: Mapping[int, bytes]


def replay(raw: RawBootLog, algorithm: HashAlgorithm) -> Mapping[int, bytes]:
    """Return the value of each PCR that the log measures into.

    Errors: `BootLogInvalid` for a bank that an event has no digest for, or a StartupLocality that is repeated, late or
    impossible.
    """
    values: dict[int, bytes] = {}
    locality: int | None = None
    for event in raw.events:
        if event.type == EV_NO_ACTION:
            found = _startup_locality(event)
            if found is not None:
                if locality is not None or 0 in values:
                    raise BootLogInvalid("StartupLocality is repeated, or comes after the first measurement of PCR 0")
                locality = found
            continue
        digest = event.digest(algorithm)
        if digest is None:
            raise BootLogInvalid(f"an event of PCR {event.pcr} has no {algorithm.label} digest")
        start = (
            (locality or 0).to_bytes(algorithm.digest_size, "big") if event.pcr == 0 else bytes(algorithm.digest_size)
        )
        values[event.pcr] = algorithm.digest(values.get(event.pcr, start) + digest)
    return MappingProxyType(values)


def verify_boot_log(raw: RawBootLog, quote: VerifiedQuote | UnanchoredQuote) -> ReplayedLog:
    """Return the log's events for the quoted PCRs if their replay gives the quoted values.

    The strongest bank that the quote has is used, and every other quoted bank must replay as well. Each quoted firmware
    PCR (0-7) must be in the log, and each other one up to 15, except IMA's, must be in the log or untouched. Events of
    PCRs that were not quoted are dropped: nothing proves them.
    Errors: `BootLogEmpty`, `BootLogInvalid`, `BootLogReplayMismatch`.
    """
    if raw.format != "crypto-agile":
        raise BootLogInvalid(f"a log of the format {raw.format} cannot prove the PCRs of a TPM 2.0")
    if not any(event.type != EV_NO_ACTION for event in raw.events):
        raise BootLogEmpty("the boot log measures nothing")
    strongest = max(quote.pcrs, key=lambda algorithm: algorithm.digest_size)
    for algorithm, quoted in quote.pcrs.items():
        _compare(replay(raw, algorithm), quoted, algorithm)
    quoted = quote.pcrs[strongest]
    events = tuple(event for event in raw.events if event.type != EV_NO_ACTION and event.pcr in quoted)
    return ReplayedLog(strongest, events, quoted)


def _compare(replayed: Mapping[int, bytes], quoted: Mapping[int, bytes], algorithm: HashAlgorithm) -> None:
    for pcr, value in quoted.items():
        if pcr in replayed:
            expected = replayed[pcr]
        elif pcr in FIRMWARE_PCRS:
            raise BootLogReplayMismatch(f"the log says nothing about PCR {pcr}: it was cut")
        elif pcr == _RUNTIME_PCR or pcr > _LAST_STATIC_PCR:
            continue
        else:
            expected = bytes(algorithm.digest_size)
        if pcr != _RUNTIME_PCR and expected != value:
            raise BootLogReplayMismatch(
                f"PCR {pcr} ({algorithm.label}): the log gives {expected.hex()}, the TPM signed {value.hex()}",
                advice="Something was measured that the log does not tell, or the log is of another boot.",
            )


def _startup_locality(event: RawEvent) -> int | None:
    if not event.data.startswith(_STARTUP_LOCALITY):
        return None
    body = event.data[len(_STARTUP_LOCALITY) :]
    if event.pcr != 0 or len(body) != 1 or body[0] not in _LOCALITIES:
        raise BootLogInvalid("StartupLocality of another PCR, of a wrong size or of an impossible locality")
    return body[0]
