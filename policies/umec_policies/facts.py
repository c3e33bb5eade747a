"""What a decision is made from: who asks for what, and flat, typed facts that name their issuer and their subject.

Cedar cannot iterate over lists, and reads a JSON object `{"__entity": …}` as a reference. So facts are computed in
Python first, into booleans, integers, strings and sets of strings, and nothing else gets through.
"""

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from umec_policies.errors import FactsInvalid

__all__ = ["MAX_TEXT", "Entity", "Fact", "Request", "facts_digest"]

Fact = bool | int | str | tuple[str, ...] | frozenset[str]
"""A Bool, a Long (64 bit, signed), a String or a Set<String> of Cedar."""

MAX_TEXT: Final = 4096
"""Characters in one string; the longest real one is the URI of a builder's identity."""
MAX_SET: Final = 1024
"""Members of one set; the largest real one holds scopes."""
MAX_FACTS: Final = 128
LONG: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Entity:
    """A Cedar entity: `Entity("Node", "lamp-7")` is `Node::"lamp-7"`."""

    type: str
    id: str

    def __post_init__(self) -> None:
        _text("an entity's type", self.type)
        _text("an entity's id", self.id)

    def cedar(self) -> dict[str, str]:
        """Return the structured form, in which no text is ever parsed as Cedar."""
        return {"type": self.type, "id": self.id}


@dataclass(frozen=True, slots=True)
class Request:
    """A question to a policy set. `facts` must hold `issuer` (who established them) and `subject` (about what)."""

    principal: Entity
    action: str
    resource: Entity
    facts: Mapping[str, Fact]

    def key(self) -> Hashable:
        """Return what is the same for the same question, at a tenth of the price of its canonical form.

        Types are in it, since True equals 1. Raises FactsInvalid for facts that cannot be compared like this.
        """
        values = tuple(self.facts.values())
        key = (self.principal, self.action, self.resource, tuple(self.facts), tuple(map(type, values)), values)
        try:
            hash(key)
        except TypeError as error:
            raise FactsInvalid("a fact is not a Bool, a 64-bit Long, a String or a set of strings") from error
        return key

    def canonical(self) -> str:
        """Return the request as canonical JSON; raises FactsInvalid."""
        _text("the action", self.action)
        value = {
            "action": self.action,
            "facts": context(self.facts),
            "principal": self.principal.cedar(),
            "resource": self.resource.cedar(),
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":"))


def context(facts: Mapping[str, Fact]) -> dict[str, bool | int | str | list[str]]:
    """Return facts as the context of a Cedar request; raises FactsInvalid."""
    if len(facts) > MAX_FACTS:
        raise FactsInvalid(f"{len(facts)} facts, at most {MAX_FACTS} are judged at once")
    for name in ("issuer", "subject"):
        if not isinstance(facts.get(name), str) or not facts[name]:
            raise FactsInvalid(f"the facts do not name their {name}")
    return {_text("the name of a fact", name): _value(name, fact) for name, fact in facts.items()}


def facts_digest(canonical: str) -> str:
    """Return the SHA-256 of a canonical request, as hex."""
    return hashlib.sha256(canonical.encode()).hexdigest()


def _value(name: str, fact: object) -> bool | int | str | list[str]:
    match fact:
        case bool():
            return fact
        case int() if fact in LONG:
            return fact
        case str() if not fact:
            return fact
        case str():
            return _text(f"fact {name}", fact)
        case tuple() | frozenset() if len(fact) <= MAX_SET:
            return sorted({_text(f"a member of fact {name}", member) for member in fact})
    raise FactsInvalid(f"fact {name} is not a Bool, a 64-bit Long, a String or a set of at most {MAX_SET} strings")


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise FactsInvalid(f"{what} is not a string of 1 to {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FactsInvalid(f"{what} is not well-formed Unicode") from error
    return value
