"""Versions of one image beside each other: which of them count, until when, and that no evidence is of two of them."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.corim import write_corim
from umec_attest.ima import parse_runtime_policy
from umec_attest.reference import (
    MAX_GRACE,
    PREDICATE_TYPE,
    FiledSet,
    FirmwareModel,
    Grace,
    fits,
    verify_reference_set,
    versions_of,
)
from umec_core import dsse

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RUNTIME = parse_runtime_policy({"files": {"/usr/bin/true": ["ab" * 32]}})


def boot(number):
    """What version `number` measures: PCR 7 is the same in all."""
    return {4: bytes([number]) * 32, 7: b"\x07" * 32, 11: bytes([number, 11]) * 16}


@pytest.fixture
def version(kit):
    """Make the set of a version, with a grace for those from `since` on, `hours` long."""

    def make(number, *, since=None, hours=24, values=None, **changes):
        grace = None if since is None else Grace(since, kit.NOW + hours * HOUR)
        return kit.make_reference(boot(number) if values is None else values, version=number, grace=grace, **changes)

    return make


def held(now, *newest_first):
    filed = [each if isinstance(each, FiledSet) else FiledSet(each) for each in newest_first]
    return [each.version for each in versions_of(filed).held(now)]


def quoted(kit, values):
    return {kit.SHA256: values}


# --- which versions count ---------------------------------------------------------------------------------------------


def test_without_a_grace_a_version_replaces_all_others_at_once(kit, version):
    assert held(kit.NOW, version(2), version(1)) == [2]
    assert held(kit.NOW, version(2, since=1), version(1)) == [2, 1]


def test_a_grace_ends_at_its_very_moment(kit, version):
    both = version(2, since=1), version(1)
    assert held(kit.NOW + DAY - timedelta(microseconds=1), *both) == [2, 1]
    assert held(kit.NOW + DAY, *both) == [2]


def test_an_operator_ends_a_grace_sooner_and_never_later(kit, version):
    newer, older = version(2, since=1), version(1)
    sooner = FiledSet(newer, kit.NOW + HOUR), older
    assert held(kit.NOW + HOUR - timedelta(microseconds=1), *sooner) == [2, 1]
    assert held(kit.NOW + HOUR, *sooner) == [2]
    assert held(kit.NOW + DAY, FiledSet(newer, kit.NOW + 2 * DAY), older) == [2]
    assert held(kit.NOW, FiledSet(version(2), kit.NOW + DAY), older) == [2]


def test_a_version_that_the_grace_does_not_name_does_not_count(kit, version):
    assert held(kit.NOW, version(4, since=3), version(3), version(2)) == [4, 3]
    assert held(kit.NOW, version(4, since=2), version(3, since=2), version(2)) == [4, 3, 2]


def test_each_newer_version_has_to_allow_an_older_one(kit, version):
    """Version 3 replaced all before it at once: that version 4 tolerates them does not bring them back."""
    assert held(kit.NOW, version(4, since=1), version(3), version(2)) == [4, 3]
    assert held(kit.NOW, version(4), version(3, since=1), version(2)) == [4]
    three = version(4, since=1), version(3, since=1, hours=2), version(2)
    assert held(kit.NOW + 2 * HOUR, *three) == [4, 3]
    assert held(kit.NOW + 2 * HOUR - timedelta(microseconds=1), *three) == [4, 3, 2]


def test_an_older_version_does_not_outlive_its_own_set(kit, version):
    older = version(1, expires=kit.NOW + HOUR)
    assert held(kit.NOW + HOUR - timedelta(microseconds=1), version(2, since=1), older) == [2, 1]
    assert held(kit.NOW + HOUR, version(2, since=1), older) == [2]


def test_versions_that_are_asked_for_other_pcrs_do_not_stand_beside_each_other(kit, version):
    plain, judged = version(1), version(1, runtime=RUNTIME)
    assert held(kit.NOW, version(2, since=1, runtime=RUNTIME), plain) == [2]
    assert held(kit.NOW, version(2, since=1), judged) == [2]
    assert held(kit.NOW, version(2, since=1, runtime=RUNTIME), judged) == [2, 1]


# --- one version as a whole -------------------------------------------------------------------------------------------


def test_evidence_is_of_one_version_as_a_whole(kit, version):
    versions = versions_of([FiledSet(version(2, since=1)), FiledSet(version(1))])
    for number in (1, 2):
        assert versions.match(quoted(kit, boot(number)), kit.NOW).version == number
    for mixed in ({4: boot(1)[4], 11: boot(2)[11]}, {4: boot(2)[4], 11: boot(1)[11]}):
        assert versions.match(quoted(kit, boot(1) | mixed), kit.NOW) is versions.newest
        assert not any(fits(each, quoted(kit, boot(1) | mixed)) for each in versions.held(kit.NOW))
    assert versions.match({}, kit.NOW) is versions.newest
    assert versions.match(quoted(kit, {4: boot(1)[4], 7: boot(1)[7]}), kit.NOW) is versions.newest


def test_the_older_version_matches_as_long_as_it_counts(kit, version):
    versions = versions_of([FiledSet(version(2, since=1)), FiledSet(version(1))])
    old = quoted(kit, boot(1))
    assert versions.ended(old, kit.NOW) is None
    assert versions.match(old, kit.NOW + DAY) is versions.newest
    ended = versions.ended(old, kit.NOW + DAY)
    assert (ended.reference.version, ended.until) == (1, kit.NOW + DAY)
    assert versions.ended(quoted(kit, boot(3)), kit.NOW + DAY) is None
    assert versions.ended(quoted(kit, boot(2)), kit.NOW + DAY) is None
    at_once = versions_of([FiledSet(version(2)), FiledSet(version(1))])
    assert at_once.ended(old, kit.NOW).until is None


def test_when_a_version_stops_to_count(kit, version):
    newest, older = version(2, since=1), version(1)
    versions = versions_of([FiledSet(newest), FiledSet(older)])
    assert versions.until(newest) is None
    assert versions.until(older) == kit.NOW + DAY


def test_of_versions_with_the_same_values_the_newest_counts(kit, version):
    same = boot(1)
    versions = versions_of(
        [FiledSet(version(2, since=1, values=same)), FiledSet(version(1, values=same))],
    )
    assert versions.match(quoted(kit, same), kit.NOW).version == 2


def test_the_firmware_build_is_that_of_the_same_version(kit, version):
    def built(number, firmware, **changes):
        models = {f"lamp {number}": FirmwareModel({kit.SHA256: {0: frozenset({firmware})}}, {})}
        return version(number, models=models, **changes)

    versions = versions_of([FiledSet(built(2, b"\x02" * 32, since=1)), FiledSet(built(1, b"\x01" * 32))])
    for number, firmware in ((1, b"\x01" * 32), (2, b"\x02" * 32)):
        assert versions.match(quoted(kit, boot(number) | {0: firmware}), kit.NOW).version == number
    mixed = quoted(kit, boot(1) | {0: b"\x02" * 32})
    assert versions.match(mixed, kit.NOW) is versions.newest
    assert not any(fits(each, mixed) for each in versions.held(kit.NOW))


PARTS = st.sampled_from([1, 2, 3])


@given(parts=st.tuples(PARTS, PARTS))
def test_any_mixture_of_versions_fits_none(kit, parts):
    sets = [
        kit.make_reference(boot(n), version=n, grace=None if n == 1 else Grace(1, kit.NOW + DAY)) for n in (3, 2, 1)
    ]
    mixed = quoted(kit, {4: boot(parts[0])[4], 7: boot(1)[7], 11: boot(parts[1])[11]})
    fitting = [each.version for each in versions_of([FiledSet(one) for one in sets]).held(kit.NOW) if fits(each, mixed)]
    assert fitting == ([parts[0]] if parts[0] == parts[1] else [])


# --- what is signed ---------------------------------------------------------------------------------------------------


def signed(kit, grace):
    predicate = {
        "version": 3,
        "issued": "2034-11-22T12:00:00Z",
        "expires": "2035-11-22T12:00:00Z",
        "pcrs": {"sha256": {"4": ["ab" * 32]}},
        "grace": grace,
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "edge", "digest": {"sha256": "cd" * 32}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    return dsse.sign(json.dumps(statement).encode(), dsse.IN_TOTO, kit.reference_key())


@pytest.mark.parametrize(
    "change",
    [
        {"from_version": 0},
        {"from_version": 3},
        {"from_version": 4},
        {"from_version": "2"},
        {"from_version": None},
        {"until": "2034-11-22T12:00:00Z"},
        {"until": "2034-11-21T12:00:00Z"},
        {"until": "2034-12-22T12:00:01Z"},
        {"until": "2034-11-23T12:00:00"},
        {"until": None},
        {"seconds": 60},
    ],
)
def test_one_fault_in_a_grace(kit, refused, change):
    good = {"from_version": 2, "until": "2034-12-22T12:00:00Z"}

    def verify(grace):
        signers = [kit.reference_key().public_key()]
        return verify_reference_set(signed(kit, grace), signers=signers, now=kit.NOW, minimum_version=0)

    with refused("reference-invalid"):
        verify(good | change)
    assert verify(good).grace == Grace(2, kit.NOW + MAX_GRACE)


def test_a_grace_does_not_outlive_the_set_that_gives_it(kit, version, refused):
    version(2, since=1, hours=2, expires=kit.NOW + 2 * HOUR)
    with refused("reference-invalid"):
        version(2, since=1, hours=2, expires=kit.NOW + HOUR)


def test_a_corim_says_nothing_of_a_grace(version):
    assert write_corim(version(2))[1] == ()
    assert write_corim(version(2, since=1))[1] == ("which older versions count beside it",)
