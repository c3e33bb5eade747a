"""Boots of open boxes, without any TPM: which are announced, and what is told of the others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.resets import ResetWatch, announced, cleared, covered, next_watch, own_pause, reset_finding

NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
KNOWN = ResetWatch(seen=5, restarts=2)


def announce(watch: ResetWatch = KNOWN, *, seconds: float = 60, resets: int = 1) -> ResetWatch:
    return announced(watch, until=NOW + timedelta(seconds=seconds), resets=resets)


def told(watch: ResetWatch) -> str | None:
    finding = reset_finding(watch)
    return None if finding is None else finding.id


def test_the_first_evidence_is_the_base_line() -> None:
    watch = next_watch(ResetWatch.from_json(None), 5, 2, NOW)
    assert watch == KNOWN
    assert told(watch) is None


def test_without_a_boot_nothing_changes() -> None:
    for watch in (KNOWN, announce(), ResetWatch(5, 4, restarts=2)):
        assert next_watch(watch, 5, 2, NOW) == watch


@pytest.mark.parametrize("counts", [(5, 1), (5, 0), (4, 9), (1, 0), (0, 1), (0, 0)])
def test_counts_that_fell_are_a_boot_and_counted_from_there(counts: tuple[int, int]) -> None:
    """TPM2_Clear, and new keys, are no way to boots that nobody counts."""
    watch = next_watch(KNOWN, *counts, NOW)
    assert watch == ResetWatch(counts[0], counts[0], restarts=counts[1])
    assert told(watch) == "reset-unannounced"
    watch = cleared(watch)
    assert told(next_watch(watch, *counts, NOW)) is None
    assert told(next_watch(watch, counts[0] + 1, 0, NOW)) == "reset-unannounced"


@pytest.mark.parametrize(
    ("counts", "resets", "expected"),
    [((0, 0), 1, None), ((1, 0), 1, None), ((1, 1), 1, "reset-unannounced"), ((1, 1), 2, None)],
)
def test_a_cleared_tpm_may_be_announced(counts: tuple[int, int], resets: int, expected: str | None) -> None:
    watch = next_watch(announce(resets=resets), *counts, NOW)
    assert told(watch) == expected
    assert (watch.seen, watch.restarts, watch.until) == (*counts, None)


def test_a_restart_is_told_as_a_boot_is() -> None:
    """Saved state, power off, box open, power on: the TPM counts no reset."""
    watch = next_watch(KNOWN, 5, 3, NOW)
    assert watch == ResetWatch(5, 5, restarts=3)
    assert told(next_watch(watch, 5, 3, NOW)) == "reset-unannounced"
    assert told(next_watch(cleared(watch), 5, 3, NOW)) is None
    assert next_watch(announce(), 5, 3, NOW) == ResetWatch(5, restarts=3)
    assert told(next_watch(announce(), 5, 4, NOW)) == "reset-unannounced"


def test_a_restart_after_an_announced_boot_is_one_more() -> None:
    assert told(next_watch(announce(), 6, 0, NOW)) is None
    assert told(next_watch(announce(), 6, 1, NOW)) == "reset-unannounced"
    assert told(next_watch(announce(resets=2), 6, 1, NOW)) is None


def test_a_watch_of_before_takes_the_restarts_as_they_are() -> None:
    watch = next_watch(ResetWatch.from_json('{"seen": 5, "unannounced": null, "until": null, "resets": 0}'), 5, 3, NOW)
    assert watch == ResetWatch(5, restarts=3)
    assert told(next_watch(watch, 5, 4, NOW)) == "reset-unannounced"


def test_a_boot_that_nobody_announced_is_told_until_somebody_clears_it() -> None:
    watch = next_watch(KNOWN, 6, 0, NOW)
    assert told(watch) == "reset-unannounced"
    finding = reset_finding(watch)
    assert finding is not None
    assert "boot 6" in finding.detail
    assert told(next_watch(watch, 6, 0, NOW)) == "reset-unannounced"
    assert told(next_watch(announce(watch), 7, 0, NOW)) == "reset-unannounced"
    assert told(cleared(watch)) is None
    assert told(next_watch(cleared(watch), 6, 0, NOW)) is None
    assert told(next_watch(cleared(watch), 7, 0, NOW)) == "reset-unannounced"


def test_an_announced_boot_is_not_told_and_uses_the_announcement_up() -> None:
    watch = next_watch(announce(), 6, 0, NOW)
    assert watch == ResetWatch(6, restarts=0)
    assert told(watch) is None
    assert told(next_watch(watch, 7, 0, NOW)) == "reset-unannounced"


@pytest.mark.parametrize(("seconds", "expected"), [(0, "reset-unannounced"), (-1, "reset-unannounced"), (1, None)])
def test_an_announcement_has_a_deadline(seconds: float, expected: str | None) -> None:
    watch = next_watch(announce(seconds=seconds), 6, 0, NOW)
    assert told(watch) == expected
    assert watch.until is None  # used up, or over


@pytest.mark.parametrize(
    ("resets", "boots", "expected"),
    [(1, 2, "reset-unannounced"), (2, 2, None), (2, 1, None), (2, 3, "reset-unannounced")],
)
def test_an_announcement_is_for_so_many_boots(resets: int, boots: int, expected: str | None) -> None:
    watch = next_watch(announce(resets=resets), 5 + boots, 0, NOW)
    assert told(watch) == expected
    assert watch.until is None


def test_a_newer_announcement_takes_the_place_of_an_older_one() -> None:
    watch = announce(announce(seconds=60, resets=4), seconds=30)
    assert (watch.deadline, watch.resets) == (NOW + timedelta(seconds=30), 1)


def test_an_announcement_covers_no_more_boots_and_no_longer_time() -> None:
    watch = announce(seconds=60, resets=2)
    assert covered(watch, NOW, until=NOW + timedelta(seconds=119), resets=2)
    assert not covered(watch, NOW, until=NOW + timedelta(seconds=120), resets=2)
    assert not covered(watch, NOW, until=NOW + timedelta(seconds=60), resets=3)
    assert not covered(watch, NOW + timedelta(seconds=60), until=NOW + timedelta(seconds=60), resets=1)
    assert not covered(KNOWN, NOW, until=NOW + timedelta(seconds=60), resets=1)


def test_a_node_announces_once_a_minute_also_after_a_boot() -> None:
    watch = next_watch(replace(announce(), own_at=NOW.isoformat()), 6, 0, NOW)
    pauses = {0: 60, 59: 1, 60: 0, 3600: 0, -3600: 0}
    assert {after: own_pause(watch, NOW + timedelta(seconds=after)).total_seconds() for after in pauses} == pauses
    assert own_pause(KNOWN, NOW) == timedelta(0)


watches = st.builds(
    ResetWatch,
    st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(-100, 100).map(lambda seconds: (NOW + timedelta(seconds=seconds)).isoformat()),
    st.integers(0, 8),
    st.none() | st.integers(0, 4),
    st.none() | st.just(NOW.isoformat()),
)
counts = st.tuples(st.integers(0, 40), st.integers(0, 4))


@given(watches)
def test_a_watch_is_read_as_it_was_written(watch: ResetWatch) -> None:
    assert ResetWatch.from_json(watch.to_json()) == watch


@given(watches, st.lists(counts | st.just("announce") | st.just("clear"), max_size=12))
def test_no_boot_passes_untold_that_was_not_announced(watch: ResetWatch, moves: list[Any]) -> None:
    """Against a model that counts: announcements are used once, what is told stays until it is cleared."""
    for move in moves:
        if move == "announce":
            watch = announce(watch)
        elif move == "clear":
            watch = cleared(watch)
            assert told(watch) is None
        else:
            before, watch = watch, next_watch(watch, *move, NOW)
            boots = boots_between(before, *move)
            deadline = before.deadline
            good = deadline is not None and deadline > NOW and boots <= before.resets
            if boots and not good:
                assert watch.unannounced == move[0]
            else:
                assert watch.unannounced == before.unannounced
            if boots:
                assert (watch.until, watch.resets) == (None, 0)
            if boots or before.seen is None:
                assert (watch.seen, watch.restarts) == move


def boots_between(watch: ResetWatch, resets: int, restarts: int) -> int:
    """Count as a TPM does: a reset, which sets the restarts to 0, or one more restart; TPM2_Clear begins anew."""
    if watch.seen is None:
        return 0
    before = restarts if watch.restarts is None else watch.restarts
    if resets < watch.seen or (resets == watch.seen and restarts < before):
        return max(1, resets + restarts)
    if resets > watch.seen:
        return (resets - watch.seen) + restarts
    return restarts - before
