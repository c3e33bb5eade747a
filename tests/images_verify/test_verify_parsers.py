"""The small parsers of verification: any bytes are a value or their one error."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_images.errors import TrustedRootInvalid
from umec_images.verify import TrustRoot
from umec_images.verify.identity import parse_utf8_string


def encode(text):
    content = text.encode()
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return b"\x0c" + length + content


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"\x0c" + tail))
def test_any_bytes_are_a_string_or_refused(raw):
    with contextlib.suppress(ValueError):
        assert encode(parse_utf8_string(raw)) == raw


@given(st.text(min_size=1, max_size=60))
def test_strings_are_read_as_they_were_written(text):
    assert parse_utf8_string(encode(text)) == text
    assert parse_utf8_string(encode("x" * 200)) == "x" * 200


@pytest.mark.parametrize(
    "raw", [b"", b"\x0c", b"\x0c\x00", b"\x0c\x02a", b"\x0c\x01ab", b"\x13\x01a", b"\x0c\x81\x01a"]
)
def test_broken_strings_are_refused(raw):
    with pytest.raises(ValueError, match="UTF8String"):
        parse_utf8_string(raw)
    assert parse_utf8_string(b"\x0c\x01a") == "a"


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3))
def test_any_bytes_are_a_trusted_root_or_refused(sigstore, place, inserted, removed):
    at = int(place * len(sigstore.root))
    with contextlib.suppress(TrustedRootInvalid):
        assert TrustRoot(sigstore.root[:at] + inserted + sigstore.root[at + removed :]).digest
