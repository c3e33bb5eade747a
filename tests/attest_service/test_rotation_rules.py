"""The base line of a new AK goes on from the last round, and from nothing older or newer."""

from dataclasses import replace

import pytest

from umec_attest.clock import ClockState
from umec_attest.quote import VerifiedQuote
from umec_attest.rotation import RotationOutOfStep, next_base_line
from umec_attest.tpm.attest import ClockInfo

LAST = ClockState(reset_count=7, restart_count=2, clock=5_000, firmware_version=3, reset_clock=4_000)
INFO = ClockInfo(clock=6_000, reset_count=7, restart_count=2, safe=True)


def quote(info: ClockInfo = INFO, firmware_version: int = 3) -> VerifiedQuote:
    return VerifiedQuote({}, info, firmware_version)


@pytest.mark.parametrize(
    "fault",
    [
        quote(replace(INFO, reset_count=6)),
        quote(replace(INFO, reset_count=8)),
        quote(replace(INFO, restart_count=1)),
        quote(replace(INFO, clock=4_999)),
        quote(firmware_version=2),
    ],
    ids=["older-boot", "newer-boot", "restart-count", "clock", "firmware"],
)
def test_a_base_line_that_does_not_go_on_is_refused(fault: VerifiedQuote) -> None:
    with pytest.raises(RotationOutOfStep) as refused:
        next_base_line(fault, LAST)
    assert refused.value.code == "rotation-out-of-step"
    assert next_base_line(quote(replace(INFO, clock=5_000)), LAST) == LAST
    assert next_base_line(quote(replace(INFO, restart_count=3)), LAST) == replace(LAST, restart_count=3, clock=6_000)


def test_there_is_no_base_line_before_the_first_round() -> None:
    with pytest.raises(RotationOutOfStep) as refused:
        next_base_line(quote(), None)
    assert refused.value.code == "rotation-out-of-step"
    next_base_line(quote(), LAST)
