"""Tests of policies, beside them in `*.test.json`.

    {"given": {"issuer": "verifier", …},              facts that every test starts from
     "tests": [{"name": "…", "principal": {"type": "Node", "id": "n1"}, "action": "trust",
                "resource": {"type": "ReferenceSet", "id": "edge"}, "facts": {"pcrs_match": false},
                "expect": "deny", "policies": ["forbid-unknown-measurement"]}]}

`policies` are exactly those that decide; a denial by nobody's permission has none. An unknown member is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from umec_policies.engine import Decision, PolicySet
from umec_policies.errors import FactsInvalid, PolicyInvalid
from umec_policies.facts import Entity, Request

__all__ = ["Case", "Outcome", "parse_cases", "parse_request", "read_cases", "run_case"]

SUFFIX: Final = ".test.json"
MAX_FILE: Final = 4 * 1024 * 1024
"""Bytes of one file of tests: some ten thousand tests."""

WireFact = StrictBool | StrictInt | StrictStr | tuple[StrictStr, ...]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=_Model)


class _Entity(_Model):
    type: StrictStr
    id: StrictStr


class _Request(_Model):
    principal: _Entity
    action: StrictStr
    resource: _Entity
    facts: dict[str, WireFact] = {}


class _Case(_Request):
    name: Annotated[StrictStr, Field(min_length=1)]
    expect: Literal["allow", "deny"]
    policies: tuple[StrictStr, ...]


class _File(_Model):
    given: dict[str, WireFact] = {}
    tests: Annotated[tuple[_Case, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Case:
    """One test: a request, whether it is to be allowed, and by which policies."""

    name: str
    request: Request
    allowed: bool
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A test and the decision that the policies made."""

    case: Case
    decision: Decision

    def faults(self) -> tuple[str, ...]:
        """Return what differs from the expectation; empty if it held. An error of evaluation is always a fault."""
        found: list[str] = list(self.decision.errors)
        if self.decision.allowed is not self.case.allowed:
            found.append(f"{_word(allowed=self.decision.allowed)}, expected {_word(allowed=self.case.allowed)}")
        if self.decision.policies != self.case.policies:
            found.append(f"decided by {_names(self.decision.policies)}, expected {_names(self.case.policies)}")
        return tuple(found)


def parse_cases(text: bytes) -> tuple[Case, ...]:
    """Return the tests of a file; raises PolicyInvalid."""
    parsed = _validated(_File, text)
    cases = tuple(
        Case(case.name, _request(case, parsed.given), case.expect == "allow", tuple(sorted(case.policies)))
        for case in parsed.tests
    )
    if len({case.name for case in cases}) != len(cases):
        raise PolicyInvalid("two tests have the same name")
    return cases


def parse_request(text: bytes) -> Request:
    """Return the request in a file: like a test, without name and expectation; raises PolicyInvalid."""
    return _request(_validated(_Request, text), {})


def read_cases(folder: Path | Traversable) -> Iterator[tuple[str, tuple[Case, ...]]]:
    """Yield name and tests of each file of tests in a folder, by name; raises PolicyInvalid."""
    try:
        found = sorted(
            (entry for entry in folder.iterdir() if entry.name.endswith(SUFFIX)), key=lambda entry: entry.name
        )
        texts = [(entry.name, entry.read_bytes()) for entry in found]
    except OSError as error:
        raise PolicyInvalid(f"the tests in {folder} cannot be read: {error}") from error
    for name, text in texts:
        yield name, parse_cases(text)


def run_case(policies: PolicySet, case: Case) -> Outcome:
    """Return what the policies make of a test."""
    return Outcome(case, policies.decide(case.request))


def _validated(model: type[M], text: bytes) -> M:
    if len(text) > MAX_FILE:
        raise PolicyInvalid(f"a file of tests has {len(text)} bytes, at most {MAX_FILE} are read")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        raise PolicyInvalid(f"the file is malformed: {faults}") from error


def _request(wire: _Request, given: Mapping[str, WireFact]) -> Request:
    try:
        request = Request(
            Entity(wire.principal.type, wire.principal.id),
            wire.action,
            Entity(wire.resource.type, wire.resource.id),
            {**given, **wire.facts},
        )
        request.canonical()
    except FactsInvalid as error:
        raise PolicyInvalid(f"the file is malformed: {error.detail}") from error
    return request


def _word(*, allowed: bool) -> str:
    return "allowed" if allowed else "denied"


def _names(policies: tuple[str, ...]) -> str:
    return ", ".join(policies) or "no policy"
