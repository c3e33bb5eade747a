"""Cedar, used so that it can only fail closed.

What Cedar leaves open and this engine closes:
    1. a schema is mandatory, every attribute in it is mandatory, and every policy validates against it;
    2. an empty policy set is refused, so is a template: it would decide nothing;
    3. every policy has an `@id` of its own, and a decision names the deciding ones by it;
    4. a policy that errors is *skipped* by Cedar, and a skipped `forbid` allows: here any error denies.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import cedarpy

from umec_policies.errors import PolicyDenied, PolicyInvalid
from umec_policies.facts import Request, facts_digest

__all__ = ["Decision", "PolicySet"]

MAX_SOURCE: Final = 1024 * 1024
"""Characters of policies and of a schema: a thousand rules are a tenth of it."""
CACHED_DECISIONS: Final = 65_536
"""Keys kept in a set's cache, two for each decision, some 500 bytes each."""
POLICY_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NO_ENTITIES: Final = cedarpy.Entities.from_json_str("[]")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy set said: `policies` are the ids of those that decided (denied and empty: nothing permitted it)."""

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]
    facts_digest: str
    policy_digest: str


class PolicySet:
    """Policies and their schema, parsed once; safe to share between threads.

    `digest` is the SHA-256 (hex) over policies and schema, `ids` the sorted ids of the policies.
    """

    __slots__ = ("_cache", "_effects", "_lock", "_policies", "_schema", "digest", "ids", "policies_text", "schema_text")

    def __init__(self, policies: str, schema: str) -> None:
        """Parse and validate; raises PolicyInvalid with all that validation found."""
        _bounded("policies", policies)
        _bounded("schema", schema)
        self._schema = _parse_schema(schema)  # 1
        self._effects = _effects(policies)  # 2, 3
        self._policies = cedarpy.PolicySet.from_str(policies)
        _validate(policies, self._schema)  # 1
        self.policies_text = policies
        self.schema_text = schema
        self.ids = tuple(sorted(self._effects))
        self.digest = _digest(policies, schema)
        self._cache: OrderedDict[Hashable, Decision] = OrderedDict()
        self._lock = Lock()

    def effect(self, policy: str) -> str:
        """Return "permit" or "forbid" for the id of a policy in this set."""
        return self._effects[policy]

    def decide(self, request: Request) -> Decision:
        """Return the decision; raises FactsInvalid if the facts are none, and never allows what could not be judged."""
        asked = request.key()  # as it was asked; the digest knows it again in another order, at a higher price
        decision = self._known(asked)
        if decision is None:
            canonical = request.canonical()
            digest = facts_digest(canonical)
            decision = self._known(digest) or self._evaluate(json.loads(canonical), digest)
            with self._lock:
                self._cache[digest] = self._cache[asked] = decision
                while len(self._cache) > CACHED_DECISIONS:
                    self._cache.popitem(last=False)
        return decision

    def _known(self, key: Hashable) -> Decision | None:
        with self._lock:
            decision = self._cache.get(key)
            if decision is not None:
                self._cache.move_to_end(key)
        return decision

    def require(self, request: Request) -> Decision:
        """Return the decision if it allows; raises PolicyDenied, which names the deciding policies."""
        decision = self.decide(request)
        if not decision.allowed:
            raise PolicyDenied(_reason(request, decision), policies=decision.policies, errors=decision.errors)
        return decision

    def _evaluate(self, request: dict[str, Any], key: str) -> Decision:
        try:
            result = cedarpy.is_authorized(
                {
                    "principal": request["principal"],
                    "action": {"type": "Action", "id": request["action"]},
                    "resource": request["resource"],
                    "context": request["facts"],
                },
                self._policies,
                NO_ENTITIES,
                self._schema,
            )
        except (ValueError, TypeError) as error:
            return Decision(
                allowed=False, policies=(), errors=(str(error),), facts_digest=key, policy_digest=self.digest
            )
        names = result.diagnostics.id_annotations_by_reason
        errors = tuple(result.diagnostics.errors)
        allowed = result.decision is cedarpy.Decision.Allow and not errors  # 4
        decided = tuple(sorted(names[reason] for reason in result.diagnostics.reasons))
        if errors and result.decision is cedarpy.Decision.Allow:
            decided = ()  # what permitted did not decide: the error did
        return Decision(allowed=allowed, policies=decided, errors=errors, facts_digest=key, policy_digest=self.digest)


def _bounded(what: str, text: str) -> None:
    if len(text) > MAX_SOURCE:
        raise PolicyInvalid(f"the {what} have {len(text)} characters, at most {MAX_SOURCE} are read")


def _parse_schema(text: str) -> cedarpy.Schema:
    try:
        schema = cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise PolicyInvalid(f"the schema does not parse: {error}") from error
    if "?:" in re.sub(r'"(?:[^"\\]|\\.)*"', '""', str(schema)):
        raise PolicyInvalid(
            "the schema has an optional attribute",
            advice="make it mandatory: a policy that misses an attribute is skipped, and a skipped forbid allows",
        )
    return schema


def _effects(text: str) -> dict[str, str]:
    """Return the effect of each policy by its id."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise PolicyInvalid(f"the policies do not parse: {error}") from error
    if parsed.get("templates"):
        raise PolicyInvalid("a template decides nothing: write the policy out")
    effects: dict[str, str] = {}
    for policy in parsed["staticPolicies"].values():
        name = policy.get("annotations", {}).get("id")
        if name is None or POLICY_ID.fullmatch(name) is None:
            raise PolicyInvalid(f'a policy has no usable @id("…") (found {name!r}): decisions are named by it')
        if name in effects:
            raise PolicyInvalid(f"two policies have the id {name}")
        effects[name] = policy["effect"]
    if not effects:
        raise PolicyInvalid("there is no policy: an empty set decides nothing")
    return effects


def _validate(policies: str, schema: cedarpy.Schema) -> None:
    result = cedarpy.validate_policies(policies, schema)
    if not result.validation_passed:
        names = result.id_annotations_by_policy_id
        found = "; ".join(f"{names.get(error.policy_id, error.policy_id)}: {error.error}" for error in result.errors)
        raise PolicyInvalid(f"the policies do not fit their schema: {found}")


def _digest(policies: str, schema: str) -> str:
    framed = json.dumps({"policies": policies, "schema": schema}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(framed.encode()).hexdigest()


def _reason(request: Request, decision: Decision) -> str:
    asked = f"{request.principal.type} {request.principal.id!r} may not {request.action} {request.resource.id!r}"
    if decision.errors:
        return f"{asked}: it could not be judged ({'; '.join(decision.errors)})"
    if decision.policies:
        return f"{asked}: forbidden by {', '.join(decision.policies)}"
    return f"{asked}: no policy permits it"
