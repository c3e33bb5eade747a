"""Members of JSON objects, read one by one and strictly.

The agent reads a handful of small objects. A validation library would do it in fewer lines and take a fifth of the
agent's memory on every node of a city.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from umec_core.jose import strict_json
from umec_core.jose.errors import JwtMalformed

__all__ = ["FieldInvalid", "Fields", "read_object"]

T = TypeVar("T")

MAX_INTEGER: Final = 2**63 - 1
MAX_MEMBERS: Final = 1024
"""Members of a list; the longest are the findings of a round."""


class FieldInvalid(ValueError):
    """A member is missing, of another form, or not expected; `place` says which one, and never its value."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


class Fields:
    """The members of an object that stands at `place`; each method takes one and raises `FieldInvalid`."""

    def __init__(self, members: Mapping[str, Any], place: str = "") -> None:
        self._left = dict(members)
        self._place = place

    def text(self, name: str, *, longest: int, shortest: int = 0, pattern: re.Pattern[str] | None = None) -> str:
        """Take a text of so many characters that matches as a whole."""
        value = self._take(name)
        if not isinstance(value, str) or not shortest <= len(value) <= longest:
            raise self._fault(name)
        if pattern is not None and pattern.fullmatch(value) is None:
            raise self._fault(name)
        return value

    def one_of(self, name: str, allowed: Mapping[str, T]) -> T:
        """Take a text that stands for something."""
        value = self._take(name)
        if not isinstance(value, str) or value not in allowed:
            raise self._fault(name)
        return allowed[value]

    def integer(self, name: str, *, least: int = 0, most: int = MAX_INTEGER) -> int:
        """Take an integer."""
        return self._integer(name, self._take(name), least, most)

    def number(self, name: str, *, above: float, most: float) -> float:
        """Take a number that is greater than `above`."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= most:
            raise self._fault(name)
        return float(value)

    def flag(self, name: str) -> bool:
        """Take true or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise self._fault(name)
        return value

    def octets(self, name: str, *, least: int = 0, most: int) -> bytes:
        """Take bytes in standard base64."""
        return self._octets(name, self._take(name), least, most)

    def hexadecimal(self, name: str, *, most: int) -> bytes:
        """Take bytes in hex, at most so many."""
        try:
            return bytes.fromhex(self.text(name, longest=2 * most))
        except ValueError as error:
            raise self._fault(name) from error

    def instant(self, name: str) -> datetime:
        """Take a time with its zone (RFC 3339)."""
        try:
            value = datetime.fromisoformat(self.text(name, longest=64))
        except ValueError as error:
            raise self._fault(name) from error
        if value.tzinfo is None:
            raise self._fault(name)
        return value

    def integers(self, name: str, *, least: int, most: int) -> tuple[int, ...]:
        """Take a list of integers."""
        return tuple(self._integer(name, value, least, most) for value in self._list(name))

    def octets_list(self, name: str, *, each: int) -> tuple[bytes, ...]:
        """Take a list of bytes in standard base64, each of at most so many."""
        return tuple(self._octets(name, value, 0, each) for value in self._list(name))

    def objects(self, name: str) -> tuple["Fields", ...]:
        """Take a list of objects."""
        return tuple(self._object(name, value) for value in self._list(name))

    def inside(self, name: str) -> "Fields":
        """Take an object."""
        return self._object(name, self._take(name))

    def texts(self, name: str, *, longest: int) -> dict[str, str]:
        """Take an object whose members are texts."""
        inner = self.inside(name)
        return {member: inner.text(member, longest=longest) for member in inner.names()}

    def names(self) -> list[str]:
        """Return the names of what nobody took."""
        return list(self._left)

    def anything(self, name: str) -> Any:  # noqa: ANN401 - what it is, is for others to judge
        """Take whatever is there; None if nothing is."""
        return self._left.pop(name, None)

    def optional(self, name: str, take: Callable[[str], T]) -> T | None:
        """Take a member by one of the methods above, or None where it is missing or null."""
        if self._left.get(name) is None:
            self._left.pop(name, None)
            return None
        return take(name)

    def end(self) -> None:
        """Refuse what nobody took."""
        if self._left:
            raise self._fault(next(iter(self._left)))

    def _take(self, name: str) -> Any:  # noqa: ANN401 - judged by the caller
        if name not in self._left:
            raise self._fault(name)
        return self._left.pop(name)

    def _list(self, name: str) -> list[Any]:
        value = self._take(name)
        if not isinstance(value, list) or len(value) > MAX_MEMBERS:
            raise self._fault(name)
        return value

    def _object(self, name: str, value: object) -> "Fields":
        if not isinstance(value, dict):
            raise self._fault(name)
        return Fields(value, self._named(name))

    def _integer(self, name: str, value: object, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._fault(name)
        return value

    def _octets(self, name: str, value: object, least: int, most: int) -> bytes:
        try:
            found = base64.b64decode(value.encode("ascii"), validate=True) if isinstance(value, str) else None
        except (UnicodeEncodeError, binascii.Error) as error:
            raise self._fault(name) from error
        if found is None or not least <= len(found) <= most:
            raise self._fault(name)
        return found

    def _named(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def _fault(self, name: str) -> FieldInvalid:
        return FieldInvalid(self._named(name))


def read_object(data: bytes) -> Fields:
    """Return the members of a JSON object, each of which is named once; raises `FieldInvalid`."""
    try:
        return Fields(strict_json(data))
    except JwtMalformed as error:
        raise FieldInvalid("the whole") from error
