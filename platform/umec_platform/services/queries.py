"""Queries of the service registry (MEC 011 clause 8.2.3.3.1): pure, strict, in the words of MEC 009."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from umec_platform.errors import QueryInvalid
from umec_platform.mec import MAX_LIST
from umec_platform.services.schemas import LocalityType

__all__ = ["ServiceQuery", "parse_service_query"]

_LISTS: Final = frozenset({"ser_instance_id", "ser_name"})
_SINGLES: Final = frozenset({"ser_category_id", "scope_of_locality", "consumed_local_only", "is_local"})
_EXCLUSIVE: Final = ("ser_instance_id", "ser_name", "ser_category_id")
_BOOLEANS: Final = {"true": True, "false": False}
_MAX_VALUE: Final = 1024


@dataclass(frozen=True, slots=True)
class ServiceQuery:
    """What a caller looks for; `None` means anything."""

    ids: frozenset[str] | None = None
    names: frozenset[str] | None = None
    category: str | None = None
    scope: LocalityType | None = None
    consumed_local_only: bool | None = None
    is_local: bool | None = None


def parse_service_query(parameters: Iterable[tuple[str, str]]) -> ServiceQuery:
    """Return the query that the parameters of a request make.

    A list may come as a repeated parameter or as one value with commas. Raises `QueryInvalid` for an unknown or
    repeated parameter, an empty value, more than one of ids, names and category, and values that are no such type.
    """
    found: dict[str, list[str]] = {}
    for name, value in parameters:
        if name not in _LISTS | _SINGLES:
            raise QueryInvalid("a query parameter is unknown here", advice=f"Known: {sorted(_LISTS | _SINGLES)}.")
        if name in found and name in _SINGLES:
            raise QueryInvalid(f"{name} appears more than once")
        found.setdefault(name, []).extend(_values(name, value))
    if sum(name in found for name in _EXCLUSIVE) > 1:
        raise QueryInvalid(f"at most one of {', '.join(_EXCLUSIVE)} may be present")
    if any(len(values) > MAX_LIST for values in found.values()):
        raise QueryInvalid(f"a list holds more than {MAX_LIST} values")
    return ServiceQuery(
        ids=_set(found, "ser_instance_id"),
        names=_set(found, "ser_name"),
        category=_single(found, "ser_category_id"),
        scope=_scope(_single(found, "scope_of_locality")),
        consumed_local_only=_boolean(found, "consumed_local_only"),
        is_local=_boolean(found, "is_local"),
    )


def _values(name: str, value: str) -> list[str]:
    values = value.split(",") if name in _LISTS else [value]
    if any(not item or len(item) > _MAX_VALUE for item in values):
        raise QueryInvalid(f"{name} has an empty or an overlong value")
    return values


def _set(found: dict[str, list[str]], name: str) -> frozenset[str] | None:
    return frozenset(found[name]) if name in found else None


def _single(found: dict[str, list[str]], name: str) -> str | None:
    return found[name][0] if name in found else None


def _scope(value: str | None) -> LocalityType | None:
    try:
        return None if value is None else LocalityType(value)
    except ValueError:
        raise QueryInvalid("scope_of_locality is no LocalityType") from None


def _boolean(found: dict[str, list[str]], name: str) -> bool | None:
    value = _single(found, name)
    if value is None:
        return None
    if value not in _BOOLEANS:
        raise QueryInvalid(f"{name} is neither true nor false")
    return _BOOLEANS[value]
