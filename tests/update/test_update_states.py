"""The state machine of updates, and the record that it leaves on disk."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.update.errors import ImageFailed, ImageOlder, ImageOther, NothingOnTrial, TrialOpen
from umec_images.update.kernel import Kernel
from umec_images.update.phases import Outcome, begin, confirmable, settle
from umec_images.update.state import Phase, Record, decode, encode, newest

MANIFEST, ANOTHER = "aa" * 32, "bb" * 32


def kernel(version, name="street-node"):
    digest = hashlib.sha256(f"{name}{version}".encode())
    return Kernel(name, version, digest.digest(), 4, bytes(32), digest.hexdigest())


OLD, NEW = kernel(4), kernel(5)


def record(phase, version=5, manifest=MANIFEST):
    return Record(generation=7, phase=phase, image="street-node", version=version, manifest=manifest)


def begun(found=None, confirmed=OLD, running=OLD, wanted=NEW, manifest=MANIFEST, again=False):
    return begin(found or Record(), confirmed, running.root_hash, wanted, manifest, again=again)


def test_a_newer_image_of_the_same_name_is_written():
    assert begun() is Phase.WRITING


@pytest.mark.parametrize("version", [1, 3, 4])
def test_an_image_that_is_not_newer_is_refused(version):
    with pytest.raises(ImageOlder, match="has version 4") as caught:
        begun(wanted=kernel(version))
    assert caught.value.code == "update-image-older"
    assert begun(wanted=kernel(6)) is Phase.WRITING


def test_another_image_is_refused():
    with pytest.raises(ImageOther, match="and this one is lamp") as caught:
        begun(wanted=kernel(5, "lamp"))
    assert caught.value.code == "update-image-other"


def test_two_versions_with_one_root_file_system_are_refused():
    with pytest.raises(ImageOther, match="the same root") as caught:
        begun(wanted=dataclasses.replace(NEW, root_hash=OLD.root_hash))
    assert caught.value.code == "update-image-other"


def test_while_an_image_is_on_trial_nothing_is_written():
    with pytest.raises(TrialOpen) as caught:
        begun(record(Phase.TRIAL), running=NEW, wanted=kernel(6))
    assert caught.value.code == "update-trial-open"
    assert begun(record(Phase.TRIAL), wanted=kernel(6), manifest=ANOTHER) is Phase.WRITING


def test_what_failed_is_tried_again_only_when_somebody_says_so():
    with pytest.raises(ImageFailed) as caught:
        begun(record(Phase.FAILED))
    assert caught.value.code == "update-image-failed"
    assert begun(record(Phase.FAILED), again=True) is Phase.STAGED
    assert begun(record(Phase.FAILED), manifest=ANOTHER) is Phase.WRITING


@pytest.mark.parametrize(
    ("phase", "next_phase"),
    [
        (Phase.NONE, Phase.WRITING),
        (Phase.WRITING, Phase.WRITING),
        (Phase.STAGED, Phase.STAGED),
        (Phase.TRIAL, Phase.STAGED),
    ],
)
def test_the_same_update_goes_on_where_it_was(phase, next_phase):
    assert begun(record(phase)) is next_phase
    assert begun(record(phase), manifest=ANOTHER) is Phase.WRITING


@pytest.mark.parametrize(
    ("phase", "found"),
    [
        (Phase.NONE, (Phase.NONE, Outcome.NOTHING)),
        (Phase.WRITING, (Phase.WRITING, Outcome.UNFINISHED)),
        (Phase.STAGED, (Phase.STAGED, Outcome.WAITING)),
        (Phase.TRIAL, (Phase.FAILED, Outcome.FELL_BACK)),
        (Phase.FAILED, (Phase.FAILED, Outcome.FELL_BACK)),
    ],
)
def test_what_a_node_finds_when_the_confirmed_image_has_started(phase, found):
    assert settle(record(phase), OLD, NEW, OLD.root_hash) == found


@pytest.mark.parametrize("phase", [Phase.STAGED, Phase.TRIAL])
def test_what_a_node_finds_when_the_other_image_has_started(phase):
    assert settle(record(phase), OLD, NEW, NEW.root_hash) == (Phase.TRIAL, Outcome.ON_TRIAL)
    assert confirmable(record(phase), OLD, NEW, NEW.root_hash) is True


def test_a_confirmation_that_nobody_noted_is_noted():
    assert settle(record(Phase.TRIAL), NEW, OLD, NEW.root_hash) == (Phase.NONE, Outcome.CONFIRMED)
    assert confirmable(record(Phase.TRIAL), NEW, OLD, NEW.root_hash) is False


@pytest.mark.parametrize(
    ("phase", "other", "running"),
    [
        (Phase.TRIAL, NEW, kernel(6)),  # it is on this disk nowhere
        (Phase.TRIAL, None, NEW),
        (Phase.NONE, NEW, NEW),  # what was before, started by hand
        (Phase.WRITING, NEW, NEW),
        (Phase.FAILED, NEW, NEW),
    ],
)
def test_what_nobody_asked_for_is_never_confirmed(phase, other, running):
    for ask in (settle, confirmable):
        with pytest.raises(NothingOnTrial, match="neither") as caught:
            ask(record(phase), OLD, other, running.root_hash)
        assert caught.value.code == "update-nothing-on-trial"


@pytest.mark.parametrize("phase", [Phase.NONE, Phase.WRITING, Phase.STAGED, Phase.TRIAL, Phase.FAILED])
def test_the_old_image_is_not_confirmed_as_the_new_one(phase):
    with pytest.raises(NothingOnTrial, match="version 4 runs") as caught:
        confirmable(record(phase), OLD, NEW, OLD.root_hash)
    assert caught.value.code == "update-nothing-on-trial"


RECORDS = st.builds(
    Record,
    generation=st.integers(0, 2**63 - 1),
    phase=st.sampled_from(Phase),
    image=st.from_regex(r"[a-z0-9-]{0,63}", fullmatch=True),
    version=st.integers(0, 2**31 - 1),
    manifest=st.sampled_from(["", MANIFEST]),
    attempt=st.integers(0, 2**31 - 1),
    why=st.from_regex(r"[a-z-]{0,40}", fullmatch=True),
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(found):
    copy = encode(found)
    assert len(copy) == 512
    assert decode(copy) == found


@given(RECORDS, st.integers(0, 511), st.integers(1, 255))
def test_a_torn_copy_does_not_count(found, place, change):
    copy = bytearray(encode(found))
    copy[place] ^= change
    assert decode(bytes(copy)) is None


@given(st.binary(max_size=600))
def test_any_bytes_are_a_record_or_none(data):
    assert decode(data) is None
    body = data[:480].ljust(480, b"\0")
    assert decode(body + hashlib.sha256(body).digest()) is None or body.startswith(b"{")


def test_a_member_of_a_later_version_is_ignored():
    said = json.loads(encode(record(Phase.TRIAL))[:480].rstrip(b"\0"))
    body = json.dumps(said | {"later": 1}).encode().ljust(480, b"\0")
    assert decode(body + hashlib.sha256(body).digest()) == record(Phase.TRIAL)
    assert decode(body + b"\0" + hashlib.sha256(body + b"\0").digest()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"generation": -1},
        {"generation": 2**63},
        {"generation": True},
        {"version": "5"},
        {"version": 2**31},
        {"attempt": 2**31},
        {"image": "Lamp"},
        {"manifest": "AA" * 32},
        {"why": "x" * 41},
        {"why": None},
        {"phase": "later"},
    ],
    ids=str,
)
def test_a_member_that_is_none_makes_a_copy_none(change):
    said = json.loads(encode(record(Phase.TRIAL))[:480].rstrip(b"\0"))
    for found, expected in ((said, record(Phase.TRIAL)), (said | change, None)):
        body = json.dumps(found).encode().ljust(480, b"\0")
        assert decode(body + hashlib.sha256(body).digest()) == expected


def test_the_newest_copy_counts_and_the_other_one_is_written_over():
    older, newer = Record(generation=3), Record(generation=4, phase=Phase.WRITING)
    assert newest([encode(older), encode(newer)]) == (newer, 0)
    assert newest([encode(newer), encode(older)]) == (newer, 1)
    assert newest([encode(older), bytes(512)]) == (older, 1)
    assert newest([bytes(512), encode(older)]) == (older, 0)
    assert newest([bytes(512), bytes(512)]) == (Record(), 0)
