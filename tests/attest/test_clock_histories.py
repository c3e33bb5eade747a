"""The clock rules over whole lives of a TPM: an honest one raises no alarm, whatever happens; a forged one does."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_attest.clock import ClockState, clock_findings, next_clock_state
from umec_attest.quote import VerifiedQuote
from umec_attest.tpm.attest import ClockInfo

SAVED_EVERY = 2**22
"""Milliseconds after which a TPM writes its clock to NV (Part 1, 36.3.2)."""
INFORMATION = {"rebooted", "clock-unsafe"}
HOUR = 3_600_000


@dataclass
class ModelTpm:
    """A TPM as Part 1, 36 and Part 3, 9.3 describe it: what is saved when, and what each way to start it does."""

    clock: int = 0
    saved: int = 0
    safe: bool = True
    reset_count: int = 1
    restart_count: int = 0
    firmware: int = 7

    def run(self, milliseconds: int) -> None:
        self._set(self.clock + milliseconds)

    def set_clock(self, ahead: int) -> None:
        """TPM2_ClockSet: ahead only."""
        self._set(self.clock + ahead)

    def _set(self, clock: int) -> None:
        if clock // SAVED_EVERY > self.clock // SAVED_EVERY:
            self.saved, self.safe = clock, True
        self.clock = clock

    def reboot(self) -> None:
        """TPM2_Shutdown(CLEAR), TPM2_Startup(CLEAR): TPM Reset, in good order."""
        self.saved = self.clock
        self.reset_count, self.restart_count = self.reset_count + 1, 0

    def power_cut(self) -> None:
        """TPM2_Startup(CLEAR) without a shutdown: TPM Reset, with the clock that was saved last."""
        self.clock, self.safe = self.saved, False
        self.reset_count, self.restart_count = self.reset_count + 1, 0

    def suspend(self) -> None:
        """TPM2_Shutdown(STATE), TPM2_Startup(STATE): TPM Resume. The clock stands meanwhile."""
        self.saved = self.clock
        self.restart_count += 1

    def hibernate(self) -> None:
        """TPM2_Shutdown(STATE), TPM2_Startup(CLEAR): TPM Restart; PCRs begin anew, resetCount does not rise."""
        self.suspend()

    def update_firmware(self) -> None:
        self.firmware += 1
        self.reboot()

    def quote(self) -> VerifiedQuote:
        info = ClockInfo(self.clock, self.reset_count, self.restart_count, self.safe)
        return VerifiedQuote({}, info, self.firmware)


LIFE = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(0, 3 * SAVED_EVERY)),
        st.tuples(st.just("run"), st.integers(0, 60_000)),
        st.tuples(st.just("set_clock"), st.integers(0, 2**40)),
        st.sampled_from([(name,) for name in ("reboot", "power_cut", "suspend", "hibernate", "update_firmware")]),
        st.just(("quote",)),
    ),
    max_size=60,
)


def live(life):
    """Let a TPM live; return its quotes."""
    tpm, quotes = ModelTpm(), []
    for what, *how in [*life, ("quote",)]:
        if what == "quote":
            quotes.append(tpm.quote())
        else:
            getattr(tpm, what)(*how)
    return quotes


def states(quotes):
    """Yield each quote with the state that the ones before it left."""
    state = None
    for quote in quotes:
        yield quote, state
        state = next_clock_state(quote, state)


def ids(quote, state):
    return {finding.id for finding in clock_findings(quote, state)}


@settings(max_examples=150)
@given(life=LIFE)
def test_no_honest_life_raises_an_alarm(life):
    for quote, state in states(live(life)):
        found = ids(quote, state)
        assert found <= INFORMATION
        booted = state is not None and quote.clock_info.reset_count > state.reset_count
        assert ("rebooted" in found) == booted
        assert ("clock-unsafe" in found) == (not quote.clock_info.safe)


@settings(max_examples=100)
@given(life=LIFE, data=st.data())
def test_every_step_back_is_found(life, data):
    """An older quote, each counter set back by itself, older firmware, a clock that is not safe for hours."""
    *_, (quote, _) = states(live(life))
    state = next_clock_state(quote, None)
    info = quote.clock_info
    moves = {
        "firmware-version-fell": replace(quote, firmware_version=data.draw(st.integers(0, quote.firmware_version - 1)))
    }
    for name, expected in (
        ("reset_count", "reset-count-fell"),
        ("restart_count", "restart-count-fell"),
        ("clock", "clock-fell"),
    ):
        value = getattr(info, name)
        if value > 0:
            back = data.draw(st.integers(0, value - 1))
            moves[expected] = replace(quote, clock_info=replace(info, **{name: back}))
    for expected, forged in moves.items():
        assert expected in ids(forged, state)
    late = replace(info, clock=info.clock + 2 * SAVED_EVERY + 1, safe=False)
    assert ids(replace(quote, clock_info=late), state) == {"clock-unsafe-long"}


@settings(max_examples=100)
@given(life=LIFE)
def test_an_older_quote_of_the_same_tpm_is_found(life):
    quotes = live(life)
    *_, (last, state) = states(quotes)
    state = next_clock_state(last, state)
    for old in quotes:
        then, now = old.clock_info, last.clock_info
        counters = (then.reset_count, then.restart_count, then.clock)
        same = counters == (now.reset_count, now.restart_count, now.clock)
        assert same or then.reset_count < now.reset_count or counters < (now.reset_count, now.restart_count, now.clock)
        assert bool(ids(old, state) - INFORMATION) == (not same or old.firmware_version < last.firmware_version)


@pytest.mark.parametrize(
    ("clock", "safe", "expected"),
    [
        (0, True, set()),
        (0, False, {"clock-unsafe"}),
        (2 * SAVED_EVERY, False, {"clock-unsafe"}),
        (2 * SAVED_EVERY + 1, False, {"clock-unsafe-long"}),
        (30 * HOUR, True, set()),
    ],
)
def test_how_long_a_clock_may_be_unsafe(clock, safe, expected):
    first = VerifiedQuote({}, ClockInfo(5 * HOUR, 3, 0, safe), 7)
    state = next_clock_state(first, None)
    assert state == ClockState(3, 0, 5 * HOUR, 7, 5 * HOUR)
    later = VerifiedQuote({}, ClockInfo(5 * HOUR + clock, 3, 0, safe), 7)
    assert ids(later, state) == expected
    assert next_clock_state(later, state).reset_clock == 5 * HOUR


def test_another_ak_begins_anew():
    older = VerifiedQuote({}, ClockInfo(0, 0, 0, safe=True), 0)
    assert ids(older, None) == set()
    assert next_clock_state(older, None) == ClockState(0, 0, 0, 0, 0)
