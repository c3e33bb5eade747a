"""Reference sets on their way: small ones as they are, large ones gzipped, none beyond the limits."""

import gzip
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import AttestError
from umec_attest.reference import MAX_PUBLISHED, MAX_SENT, PACKED_TYPE, pack, unpack


def test_a_set_as_large_as_a_request_goes_as_it_is():
    envelope = b"x" * MAX_SENT
    assert pack(envelope) == ("application/vnd.dsse.envelope.v1+json", envelope)
    kind, packed = pack(envelope + b"x")
    assert kind == PACKED_TYPE
    assert len(packed) < MAX_SENT
    assert unpack(packed) == envelope + b"x"
    assert pack(envelope + b"x")[1] == packed


def test_a_set_beyond_the_limits(refused):
    assert unpack(pack(b"x" * MAX_PUBLISHED)[1]) == b"x" * MAX_PUBLISHED
    with refused("reference-too-large"):
        pack(b"x" * (MAX_PUBLISHED + 1))
    noise = random.Random(1).randbytes(MAX_SENT + 1)  # noqa: S311 - nothing secret
    with refused("reference-too-large"):
        pack(noise)


def test_what_is_no_set_or_too_large_when_unpacked(refused):
    packed = gzip.compress(b"a set")
    assert unpack(packed) == b"a set"
    for broken in (b"", b"a set", packed[:-1], packed + b"x", packed + packed):
        with refused("reference-invalid"):
            unpack(broken)
    assert unpack(gzip.compress(b"x" * MAX_PUBLISHED))
    with refused("reference-too-large"):
        unpack(gzip.compress(b"x" * (MAX_PUBLISHED + 1)))


@given(st.binary(max_size=200))
def test_any_bytes_are_unpacked_or_refused(data):
    with pytest.raises(AttestError):
        unpack(data)
    assert unpack(gzip.compress(data)) == data
