"""Shapes of decoded CBOR: each function returns what it checked, or raises."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cbor2 import CBORTag

from umec_attest.corim.errors import CorimInvalid, CorimUnsupported

__all__ = ["array", "integer", "mapping", "tagged"]


def tagged(value: object, tag: int, what: str) -> Any:  # noqa: ANN401 - whatever is tagged
    """Return what is in this tag."""
    if not isinstance(value, CBORTag) or value.tag != tag:
        raise CorimInvalid(f"{what} has the tag {tag}")
    return value.value


def mapping(
    value: object,
    what: str,
    *,
    needed: Collection[int] = (),
    known: Collection[int] = (),
    refused: Collection[int] = (),
) -> Mapping[int, Any]:
    """Return a map with all `needed` and any `known` keys.

    Keys in `refused` mean something that we do not read (`CorimUnsupported`), all others nothing (`CorimInvalid`).
    """
    if not isinstance(value, Mapping) or not all(type(key) is int for key in value):
        raise CorimInvalid(f"{what} is a map with integer keys")
    strange = value.keys() - {*needed, *known}
    if strange & set(refused):
        raise CorimUnsupported(f"{what} has parts that are not read: {sorted(strange)}")
    if strange:
        raise CorimInvalid(f"{what} has unknown parts: {sorted(strange)}"[:200])
    missing = sorted(set(needed) - value.keys())
    if missing:
        raise CorimInvalid(f"{what} lacks {missing}")
    return value


def array(value: object, what: str, *, size: int | None = None) -> Sequence[Any]:
    """Return an array: of this size, or with something in it."""
    if not isinstance(value, list | tuple) or not value or (size is not None and len(value) != size):
        raise CorimInvalid(f"{what}: an array of {'at least one' if size is None else size} is expected")
    return value


def integer(value: object, what: str) -> int:
    """Return an integer."""
    if type(value) is not int:
        raise CorimInvalid(f"{what} is an integer")
    return value
