"""CBOR (RFC 8949), read strictly: one item, definite lengths, no key twice, bounded depth, tags as tags."""

from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

from cbor2 import CBORDecodeError, CBORDecoder, CBORTag

from umec_attest.corim.errors import CorimInvalid

__all__ = ["load_cbor"]

MAX_SIZE: Final = 1024 * 1024
"""Bytes; a value with its frame is under a hundred."""
MAX_DEPTH: Final = 24
"""A digest in a triple is at depth ten."""


def load_cbor(data: bytes) -> object:
    """Return the one item that these bytes are; raises `CorimInvalid`.

    Integers, text, bytes, lists or tuples, mappings, booleans, None, floats, and `CBORTag` for every tag, also for
    those that could become a date, a regular expression or a reference to something else.
    """
    if len(data) > MAX_SIZE:
        raise CorimInvalid(f"{len(data)} bytes are beyond the limit of {MAX_SIZE}")
    stream = BytesIO(data)
    decoder = CBORDecoder(
        stream,
        semantic_decoders=_TAGS,
        max_depth=MAX_DEPTH,
        allow_indefinite=False,
        allow_duplicate_keys=False,
    )
    try:
        item = decoder.decode()
    except (CBORDecodeError, TypeError) as error:
        raise CorimInvalid(f"no strict CBOR: {error}"[:200]) from None
    if stream.tell() != len(data):
        raise CorimInvalid(f"{len(data) - stream.tell()} bytes after the end of the item")
    return item


def _kept(number: int) -> Callable[[Any, bool], Any]:
    def keep(value: Any, _immutable: bool) -> CBORTag:  # noqa: ANN401, FBT001 - as the decoder calls it
        return CBORTag(number, value)

    return keep


_TAGS: Final = {number: _kept(number) for number in (*range(320), 1004, 43000, 55799)}
"""Those that the decoder would make something of."""
