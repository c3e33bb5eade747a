"""Floors: when a version becomes the lowest that is believed of a node, and that no node is lost by a failed update."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from umec_attest.floors import SETTLED, VersionFloor, lowered, next_floor, rollback_finding

NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def settled(version, known=None):
    """A node that stood on a version for long enough."""
    begun = next_floor(known or VersionFloor(), "edge", version, NOW)
    return next_floor(begun, "edge", version, NOW + SETTLED)


def test_a_version_is_the_floor_after_its_time_and_not_before():
    begun = next_floor(VersionFloor(), "edge", 2, NOW)
    assert (begun.image, begun.floor, begun.version) == ("edge", 0, 2)
    assert next_floor(begun, "edge", 2, NOW + SETTLED - TICK) is begun
    after = next_floor(begun, "edge", 2, NOW + SETTLED)
    assert (after.floor, after.since) == (2, None)
    assert next_floor(after, "edge", 2, NOW + 9 * SETTLED) is after
    assert rollback_finding(after, "edge", 2) is None
    assert rollback_finding(after, "edge", 3) is None
    assert rollback_finding(after, "edge", 1).id == "version-rollback"


def test_the_time_begins_anew_with_each_change():
    """Half an hour on trial, back, and half an hour on trial again."""
    half = SETTLED / 2
    first = next_floor(settled(1), "edge", 2, NOW)
    back = next_floor(first, "edge", 1, NOW + half)
    again = next_floor(back, "edge", 2, NOW + half)
    still = next_floor(again, "edge", 2, NOW + SETTLED)
    assert still.floor == 1
    assert rollback_finding(still, "edge", 1) is None
    assert next_floor(still, "edge", 2, NOW + half + SETTLED).floor == 2


def test_a_clock_that_was_set_back_raises_nothing():
    begun = next_floor(VersionFloor(), "edge", 2, NOW)
    assert next_floor(begun, "edge", 2, NOW - 9 * SETTLED) is begun


def test_a_floor_is_of_one_image():
    high = settled(7)
    assert rollback_finding(high, "other", 1) is None
    other = next_floor(high, "other", 1, NOW)
    assert (other.image, other.floor, other.version) == ("other", 0, 1)
    assert settled(2, high).floor == 7


def test_an_operator_lowers_it_and_it_rises_again():
    low = lowered(settled(2), 1)
    assert rollback_finding(low, "edge", 1) is None
    assert rollback_finding(lowered(settled(3), 2), "edge", 1) is not None
    assert next_floor(low, "edge", 2, NOW + 2 * SETTLED).floor == 1  # it does not rise before the node moves
    assert settled(2, next_floor(low, "edge", 1, NOW)).floor == 2


@given(
    known=st.builds(
        VersionFloor,
        st.none() | st.sampled_from(["edge", "other"]),
        st.integers(0, 2**53),
        st.integers(0, 2**53),
        st.none() | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    )
)
def test_what_is_kept_is_read_as_it_was(known):
    assert VersionFloor.from_json(known.to_json()) == known
    assert VersionFloor.from_json(None) == VersionFloor()


@given(steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5000)), max_size=30))
def test_a_floor_never_falls_by_itself_and_is_never_above_what_the_node_stood_on(steps):
    known, now, stood = VersionFloor(), NOW, 0
    for version, seconds in steps:
        now += timedelta(seconds=seconds)
        if rollback_finding(known, "edge", version) is not None:
            assert version < known.floor
            continue  # such a round is no good one
        after = next_floor(known, "edge", version, now)
        stood = max(stood, version)
        assert known.floor <= after.floor <= stood
        known = after
