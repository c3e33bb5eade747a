"""Who finds no room is told when to come back: one after the other, at the pace of what gets done."""

import pytest

from umec_attest.service.errors import VerifierBusy
from umec_attest.service.evidence.room import LONGEST, SHARE, SOONEST, Room


class Watch:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def turned_away(room: Room) -> int:
    with pytest.raises(VerifierBusy) as caught, room.taken():
        pass
    assert caught.value.code == "verifier-busy"
    return caught.value.retry_after


def full(watch: Watch, *, between: float) -> Room:
    """Return a room for one that is taken, after many that were done at this pace."""
    room = Room(1, now=watch)
    for _ in range(1000):
        watch.now += between
        with room.taken():
            pass
    room._left = 0
    return room


def test_turns_come_one_after_the_other_at_the_pace_of_what_gets_done() -> None:
    room = full(Watch(), between=0.02)
    turns = [turned_away(room) for _ in range(400)]
    assert turns[0] == SOONEST
    assert turns == sorted(turns)
    assert turns[-1] == round(SOONEST + 399 * 0.02 / SHARE)
    assert max(turns.count(turn) for turn in set(turns)) <= 26  # 25 a second, and rounded


def test_a_verifier_that_is_twice_as_fast_gives_turns_twice_as_close() -> None:
    slow, fast = full(Watch(), between=0.04), full(Watch(), between=0.02)
    slow_turns, fast_turns = ([turned_away(room) for _ in range(300)] for room in (slow, fast))
    assert (slow_turns[-1] - SOONEST) == pytest.approx(2 * (fast_turns[-1] - SOONEST), abs=1)


def test_no_turn_is_later_than_a_node_may_be_silent_and_none_is_at_once() -> None:
    room = full(Watch(), between=5.0)
    turns = [turned_away(room) for _ in range(1000)]
    assert (min(turns), max(turns)) == (SOONEST, LONGEST)


def test_turns_that_are_over_count_no_more() -> None:
    watch = Watch()
    room = full(watch, between=0.05)
    for _ in range(100):
        last = turned_away(room)
    assert last > 5
    watch.now += last
    assert turned_away(room) == SOONEST
