"""Why a decision came out as it did, and which single fact would have turned it around."""

from dataclasses import dataclass

from umec_policies.engine import Decision, PolicySet
from umec_policies.facts import Request

__all__ = ["Explanation", "Verdict", "explain"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One policy: its effect ("permit" or "forbid") and whether it decided."""

    policy: str
    effect: str
    decided: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, the part of every policy in it, and the Bool facts that alone would turn it around."""

    decision: Decision
    verdicts: tuple[Verdict, ...]
    pivots: tuple[str, ...]


def explain(policies: PolicySet, request: Request) -> Explanation:
    """Return the decision on a request and its reasons; raises FactsInvalid."""
    decision = policies.decide(request)
    verdicts = tuple(Verdict(name, policies.effect(name), name in decision.policies) for name in policies.ids)
    pivots = tuple(name for name in sorted(request.facts) if _turns(policies, request, name, decision))
    return Explanation(decision, verdicts, pivots)


def _turns(policies: PolicySet, request: Request, name: str, decision: Decision) -> bool:
    value = request.facts[name]
    if not isinstance(value, bool):
        return False
    turned = Request(request.principal, request.action, request.resource, {**request.facts, name: not value})
    return policies.decide(turned).allowed is not decision.allowed
