"""Reference sets on their way to a verifier: a large one travels gzipped, which makes it a third as long.

A verifier reads a body of `MAX_SENT` bytes at most, whoever sends it. What it unpacks, and then parses, it takes from
those only who may publish sets, and `MAX_PUBLISHED` bounds it: some 18,000 files, a quarter of a second.
"""

import gzip
import zlib
from typing import Final

from umec_attest.errors import ReferenceInvalid, ReferenceTooLarge

__all__ = ["ENVELOPE_TYPE", "MAX_PUBLISHED", "MAX_SENT", "PACKED_TYPE", "pack", "unpack"]

MAX_SENT: Final = 1024 * 1024
"""Bytes of a request: what every listener of the platform reads of a stranger."""
MAX_PUBLISHED: Final = 3 * 1024 * 1024
"""Bytes of a set that a verifier takes. Offline, one may be larger."""
ENVELOPE_TYPE: Final = "application/vnd.dsse.envelope.v1+json"
PACKED_TYPE: Final = "application/gzip"


def pack(envelope: bytes) -> tuple[str, bytes]:
    """Return content type and body for a set; `ReferenceTooLarge` where no verifier takes it."""
    if len(envelope) > MAX_PUBLISHED:
        raise ReferenceTooLarge(f"the set has {len(envelope):,} bytes, and a verifier takes {MAX_PUBLISHED:,}")
    if len(envelope) <= MAX_SENT:
        return ENVELOPE_TYPE, envelope
    packed = gzip.compress(envelope, mtime=0)
    if len(packed) > MAX_SENT:
        raise ReferenceTooLarge(f"the set has {len(packed):,} bytes gzipped, and a verifier reads {MAX_SENT:,}")
    return PACKED_TYPE, packed


def unpack(packed: bytes) -> bytes:
    """Return the set of a gzipped body; `ReferenceTooLarge` as soon as it is, `ReferenceInvalid` for no gzip."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        envelope = stream.decompress(packed, MAX_PUBLISHED + 1)
    except zlib.error as error:
        raise ReferenceInvalid(f"the body is not gzipped as it says: {error}") from None
    if len(envelope) > MAX_PUBLISHED:
        raise ReferenceTooLarge(f"the set has more than {MAX_PUBLISHED:,} bytes")
    if not stream.eof or stream.unused_data:
        raise ReferenceInvalid("the body is not one gzipped set")
    return envelope
