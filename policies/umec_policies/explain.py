"""Why a decision came out as it did: each policy with the facts that it reads, and which single fact would turn it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cedarpy

from umec_policies.engine import Decision, PolicySet
from umec_policies.facts import Fact, Request

__all__ = ["Explanation", "Rule", "Verdict", "explain", "rules"]

MAX_TRIED: Final = 32
"""Other values that are tried for a fact: the literals of a set, with those beside them."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy of a set: its effect ("permit" or "forbid"), its text, and the facts that its conditions read."""

    policy: str
    effect: str
    text: str
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One policy in a decision: its effect, whether it decided, and the facts that its conditions read."""

    policy: str
    effect: str
    decided: bool
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, the part of every policy in it, and the facts that alone would turn it: name and such a value."""

    decision: Decision
    verdicts: tuple[Verdict, ...]
    turns: Mapping[str, Fact]

    @property
    def pivots(self) -> tuple[str, ...]:
        """The names of the facts that alone would turn the decision."""
        return tuple(self.turns)


def rules(policies: PolicySet) -> tuple[Rule, ...]:
    """Return the policies of a set by their ids, each written out."""
    found = [
        Rule(
            policy=written["annotations"]["id"],
            effect=written["effect"],
            text=_text(written),
            reads=tuple(sorted(set(_reads(written["conditions"])))),
        )
        for written in _written(policies)
    ]
    return tuple(sorted(found, key=lambda rule: rule.policy))


def explain(policies: PolicySet, request: Request) -> Explanation:
    """Return the decision on a request and its reasons; raises FactsInvalid."""
    decision = policies.decide(request)
    verdicts = tuple(
        Verdict(rule.policy, rule.effect, rule.policy in decision.policies, rule.reads) for rule in rules(policies)
    )
    literals = tuple(dict.fromkeys(_literals([written["conditions"] for written in _written(policies)])))
    turns = {}
    for name in sorted(request.facts):
        for other in _others(request.facts[name], literals):
            turned = Request(request.principal, request.action, request.resource, {**request.facts, name: other})
            if policies.decide(turned).allowed is not decision.allowed:
                turns[name] = other
                break
    return Explanation(decision, verdicts, turns)


def _written(policies: PolicySet) -> list[dict[str, Any]]:
    return list(json.loads(cedarpy.policies_to_json_str(policies.policies_text))["staticPolicies"].values())


def _text(written: Mapping[str, Any]) -> str:
    document = {"staticPolicies": {"policy": written}, "templates": {}, "templateLinks": []}
    return cedarpy.format_policies(cedarpy.policies_from_json_str(json.dumps(document))).strip()


def _reads(part: object) -> Iterator[str]:
    """Yield the names of the facts in a condition, as Cedar's JSON has it."""
    match part:
        case {".": {"left": {"Var": "context"}, "attr": str(name)}}:
            yield name
        case dict():
            for below in part.values():
                yield from _reads(below)
        case list():
            for below in part:
                yield from _reads(below)


def _literals(part: object) -> Iterator[str | int]:
    match part:
        case {"Value": bool()}:
            return
        case {"Value": int() | str() as value}:
            yield value
        case dict():
            for below in part.values():
                yield from _literals(below)
        case list():
            for below in part:
                yield from _literals(below)


def _others(fact: Fact, literals: tuple[str | int, ...]) -> Sequence[Fact]:
    """Return other values of a fact that could matter: the opposite, and what the policies compare with."""
    match fact:
        case bool():
            return [not fact]
        case int():
            beside = [value + step for value in literals if isinstance(value, int) for step in (0, 1, -1)]
            return [value for value in dict.fromkeys(beside) if value != fact][:MAX_TRIED]
        case str():
            return [value for value in literals if isinstance(value, str) and value != fact][:MAX_TRIED]
    return []
