"""Versions of images: what has an order and what has none."""

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.oci.errors import VersionInvalid
from umec_images.oci.version import parse_version, version_of

ASCENDING = [
    "0.0.0-0",
    "0.0.0",
    "0.9.10",
    "1.0.0-1",
    "1.0.0-9",
    "1.0.0-10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "10.0.0",
]


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1.0", "1.0.0.0", "v1.0.0", "01.0.0", "1.00.0", "-1.0.0", "1.0.٣", "latest"),
        *("1.0.0-", "1.0.0-01", "1.0.0-a..b", "1.0.0+", "1.0.0-é", "1.0.0 ", " 1.0.0", "1.0.0\n"),
        *("1.0.0-" + "a" * 128, "1.0.0+" + "1" * 128),
    ],
)
def test_what_is_no_semantic_version_is_refused(text):
    with pytest.raises(VersionInvalid) as refused:
        parse_version(text)
    assert refused.value.code == "version-invalid"
    assert version_of({"org.opencontainers.image.version": text}) is None


def test_versions_have_the_order_of_the_specification():
    for lower, higher in pairwise(ASCENDING):
        assert parse_version(lower) < parse_version(higher)
        assert not parse_version(higher) < parse_version(lower)


def test_build_metadata_is_kept_and_has_no_order():
    first, second = parse_version("1.0.0+20261122"), parse_version("1.0.0+exp.sha.5114f85")
    assert first == second
    assert not first < second
    assert str(second) == "1.0.0+exp.sha.5114f85"


def test_an_image_without_the_annotation_states_no_version():
    assert version_of({}) is None
    assert version_of({"version": "1.0.0"}) is None
    assert version_of({"org.opencontainers.image.version": "1.0.0"}) == parse_version("1.0.0")


NUMBER = st.integers(0, 10**20)
WORD = st.from_regex(r"[0-9A-Za-z-]*[A-Za-z-][0-9A-Za-z-]*", fullmatch=True).filter(lambda word: len(word) < 20)
PARTS = st.lists(NUMBER.map(str) | WORD, min_size=1, max_size=3).map(".".join)


@given(NUMBER, NUMBER, NUMBER, st.none() | PARTS)
def test_what_is_written_as_one_is_read_as_one(major, minor, patch, prerelease):
    text = f"{major}.{minor}.{patch}" + ("" if prerelease is None else f"-{prerelease}")
    version = parse_version(text)
    assert (version.release, version.text, version.final) == ((major, minor, patch), text, prerelease is None)
    assert version <= parse_version(f"{major}.{minor}.{patch}")


@given(st.text(max_size=140) | st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}[-+a-z0-9.]{0,10}", fullmatch=True))
def test_any_text_is_a_version_or_refused(text):
    with contextlib.suppress(VersionInvalid):
        assert parse_version(text).text == text
