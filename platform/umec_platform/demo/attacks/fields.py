"""Every text of a wire format, found in its model: where whoever writes a document may put what they like."""

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

__all__ = ["PAYLOADS", "TRACE", "Text", "texts"]

TRACE: Final = "umec-was-here"
"""Part of every payload: where it is found, the payload has come that far."""

PAYLOADS: Final = (
    f"; touch /tmp/{TRACE}",
    f"$(touch /tmp/{TRACE})`touch /tmp/{TRACE}`",
    f'\nlocal-data: "{TRACE}.example. A 192.0.2.66"',
    f"\nUBCT1 local_data {TRACE}.example 0 IN A 192.0.2.66",
    f' }}; add rule inet umec forward accept comment "{TRACE}"',
    f'"}}], "privileged": true, "args": ["{TRACE}"], "x": [{{"',
    f"/../../../../tmp/{TRACE}",
    f"\0{TRACE}",
    f"\r\nX-Header: {TRACE}",
    f"' OR '1'='1' -- {TRACE}",
    f"\u202e\u2028\uff0f\u037e{TRACE}",
    f"%s%n{{0}}${{{TRACE}}}",
)
"""For a shell (two), the resolver's configuration and its control socket, nftables, the OCI runtime, a path, C, HTTP,
SQL, a reader of Unicode and a template. Each goes behind a text that is good at its place.
"""

_EITHER: Final = (
    {"uris", "fqdn", "addresses", "alternative"},
    {"transportId", "transportInfo"},
    {"serInstanceIds", "serNames", "serCategories"},
)
"""Members of which one excludes the others (MEC 011)."""

_UNIONS: Final = (Union, types.UnionType)
_OWN_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - in a rule it stands for the instance's own


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a document: `place` are the names of members and the indices of lists that lead to it.

    `good` is a text that may be there, `build` returns the whole document with another one in its place.
    """

    place: tuple[str | int, ...]
    good: str
    build: Callable[[str], Any]


def texts(model: type[BaseModel], good: dict[str, Any] | None = None) -> Iterator[Text]:
    """Yield every text that a document of a model can have, those that the good one leaves out among them.

    Without a good document the smallest that its types allow is made. Choices, addresses and members of objects of any
    shape are texts, too; so is a member that no standard names, where a model keeps those.
    """
    document = _sample(model) if good is None else good
    for name, kind in _members(model):
        for inner in _texts(kind, document.get(name)):
            yield Text((name, *inner.place), inner.good, _member(document, name, inner.build))
    if model.model_config.get("extra") == "allow":
        name = "x-of-no-standard"
        yield Text((name,), "x", _member(document, name, str))


def _texts(kind: Any, good: Any) -> Iterator[Text]:  # noqa: ANN401 - a type of any form, any JSON
    kind = _bare(kind)
    if _is(kind, BaseModel):
        yield from texts(kind, good if isinstance(good, dict) else None)
    elif get_origin(kind) is list:
        first, *others = good or [None]
        for inner in _texts(get_args(kind)[0], first):
            yield Text((0, *inner.place), inner.good, _item(others, inner.build))
    elif kind is Any or get_origin(kind) is dict:
        yield Text(("anything",), "x", _member({}, "anything", str))
    elif not _is(kind, int, float):
        yield Text((), good if isinstance(good, str) else str(_sample(kind)), str)


def _member(document: dict[str, Any], name: str, build: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    excluded = {rival for rivals in _EITHER if name in rivals for rival in rivals}
    others = {member: value for member, value in document.items() if member not in excluded}
    return lambda text: {**others, name: build(text)}


def _item(others: list[Any], build: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [build(text), *others]


def _members(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield field.serialization_alias or field.alias or name, field.annotation


def _sample(kind: Any) -> Any:  # noqa: ANN401 - a type of any form, any JSON
    """Return a small good value of a type."""
    kind = _bare(kind)
    if _is(kind, BaseModel):
        needed = {name for name, field in kind.model_fields.items() if field.is_required()}
        pairs = zip(kind.model_fields, _members(kind), strict=True)
        return {wire: _sample(inner) for name, (wire, inner) in pairs if name in needed}
    if get_origin(kind) is list:
        return [_sample(get_args(kind)[0])]
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if _is(kind, Enum):
        return next(iter(kind)).value
    if _is(kind, int, float):
        return 1
    return "x1" if kind is str else _OWN_ADDRESS


def _bare(kind: Any) -> Any:  # noqa: ANN401 - a type of any form
    """Return a type without its constraints, and without None."""
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if get_origin(kind) in _UNIONS:
        return _bare(next(one for one in get_args(kind) if one is not type(None)))
    return kind


def _is(kind: Any, *classes: type) -> bool:  # noqa: ANN401 - a type of any form
    return isinstance(kind, type) and issubclass(kind, classes)
