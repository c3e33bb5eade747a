"""The TPM's clock and reset counters over time (TPM 2.0 Part 1, 36): what may move which way.

| change since the last accepted quote      | means                              | finding                    |
|-------------------------------------------|------------------------------------|----------------------------|
| resetCount falls                          | TPM2_Clear, another TPM, or replay | reset-count-fell           |
| resetCount rises                          | a reboot: its boot log is due      | rebooted (information)     |
| resetCount rises, restartCount falls      | the same: it counts from the reset | rebooted (information)     |
| restartCount rises, resetCount the same   | a suspend, or a hibernation        | nothing (see `resets`)     |
| restartCount falls, resetCount the same   | impossible                         | restart-count-fell         |
| clock falls, resetCount the same          | impossible                         | clock-fell                 |
| clock falls, resetCount rises             | a power cut: up to 70 minutes lost | nothing more               |
| clock jumps ahead                         | its owner set it (TPM2_ClockSet)   | nothing                    |
| safe = 0 soon after a reset               | the same                           | clock-unsafe (information) |
| safe = 0 hours later                      | the TPM does not keep its clock    | clock-unsafe-long (warning)|
| firmwareVersion falls                     | an older firmware, with its holes  | firmware-version-fell      |

All of it is about one AK: another one begins anew, without a state before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from umec_attest.bootlog.findings import Finding
from umec_attest.quote import UnanchoredQuote, VerifiedQuote

__all__ = ["ClockState", "clock_findings", "next_clock_state"]

_MAX_UNSAFE: Final = 2 * 2**22
"""Milliseconds. A TPM saves its clock at least every 2^22 ms (Part 1, 36.3.2) and is safe again after that; doubled."""


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the last accepted quote said; the service keeps it for each AK.

    `clock` is in milliseconds, `reset_clock` what it was in the first quote that we saw after the present reset.
    """

    reset_count: int
    restart_count: int
    clock: int
    firmware_version: int
    reset_clock: int


def next_clock_state(quote: VerifiedQuote | UnanchoredQuote, previous: ClockState | None) -> ClockState:
    """Return the state to keep if nothing in this quote went backwards."""
    info = quote.clock_info
    same = previous is not None and previous.reset_count == info.reset_count
    reset_clock = previous.reset_clock if previous is not None and same else info.clock
    return ClockState(info.reset_count, info.restart_count, info.clock, quote.firmware_version, reset_clock)


def clock_findings(quote: VerifiedQuote | UnanchoredQuote, previous: ClockState | None) -> tuple[Finding, ...]:
    """Return what is remarkable about the clock, as in the table above."""
    return tuple(_findings(quote, previous))


def _findings(quote: VerifiedQuote | UnanchoredQuote, previous: ClockState | None) -> Iterator[Finding]:
    info, state = quote.clock_info, next_clock_state(quote, previous)
    if not info.safe:
        if info.clock - state.reset_clock > _MAX_UNSAFE:
            yield Finding("clock-unsafe-long", "the TPM's clock is still not safe, hours after its reset")
        else:
            yield Finding("clock-unsafe", "the TPM lost power; its clock may have gone back before this boot")
    if previous is None:
        return
    if quote.firmware_version < previous.firmware_version:
        yield _fell("firmware-version-fell", "firmwareVersion", previous.firmware_version, quote.firmware_version)
    if info.reset_count < previous.reset_count:
        yield _fell("reset-count-fell", "resetCount", previous.reset_count, info.reset_count)
    elif info.reset_count > previous.reset_count:
        yield Finding(
            "rebooted", f"the node booted {info.reset_count - previous.reset_count} times since the last round"
        )
    else:
        if info.restart_count < previous.restart_count:
            yield _fell("restart-count-fell", "restartCount", previous.restart_count, info.restart_count)
        if info.clock < previous.clock:
            yield _fell("clock-fell", "the clock", previous.clock, info.clock)


def _fell(identifier: str, what: str, before: int, now: int) -> Finding:
    return Finding(identifier, f"{what} fell from {before} to {now}", f"at least {before}", str(now))
