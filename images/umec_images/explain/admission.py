"""What admission would say, and why: the same decision as at a start, with every check beside it."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from umec_core.errors import UmecError
from umec_images.admission.admit import Terms, judge, question
from umec_images.explain.checks import Check, Status, attempt, not_judged
from umec_images.explain.proof import explain_proof, moment
from umec_images.oci.reference import check_digest, check_repository
from umec_images.promotion.evidence import Attached, Attachment, Proof, Registry, fetch_attached
from umec_images.promotion.summaries import find_summary, verify_summary
from umec_images.statements import Summary
from umec_policies import Request
from umec_policies.explain import explain

__all__ = ["Explanation", "explain_admission"]

NO_QUESTION = "without provenance and a promotion there is no question"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a tenant may start a digest at a stage now, why not, and every check."""

    tenant: str
    repository: str
    digest: str
    stage: str
    refusal: UmecError | None
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as it is sent and printed."""
        refusal = self.refusal
        return {
            "tenant": self.tenant,
            "repository": self.repository,
            "digest": self.digest,
            "stage": self.stage,
            "admitted": refusal is None,
            "code": None if refusal is None else refusal.code,
            "detail": None if refusal is None else refusal.detail,
            "advice": None if refusal is None else refusal.advice,
            "checks": [check.to_json() for check in self.checks],
        }


async def explain_admission(
    *, tenant: str, repository: str, digest: str, stage: str, registry: Registry, terms: Terms, now: datetime
) -> Explanation:
    """Return what `admit` would say. Raises ReferenceInvalid for what names no image; every other refusal is told."""
    check_repository(repository)
    check_digest(digest)
    try:
        attached = await fetch_attached(registry, repository, digest)
    except UmecError as refusal:
        manifest = Check(
            "manifest", Status.REFUSED, f"bytes with the digest {digest}", refusal.detail, refusal.code, refusal.advice
        )
        return Explanation(tenant, repository, digest, stage, refusal, (manifest,))
    return await asyncio.to_thread(_explain, attached, tenant, stage, terms, now)


def _explain(attached: Attached, tenant: str, stage: str, terms: Terms, now: datetime) -> Explanation:
    refusal = None
    try:
        judge(attached, tenant, stage, terms, now)
    except UmecError as refused:
        refusal = refused
    checks, proof = _built(attached, tenant, terms, now)
    promoted, summary = _promoted(attached, stage, terms, now)
    if proof is None or summary is None:
        decided = not_judged("policy", _expected(terms), NO_QUESTION)
    else:
        decided = _decided(question(attached, tenant, stage, proof, summary, terms.deny_list, now), terms, refusal)
    checks += [*promoted, _denied(attached, terms), decided]
    return Explanation(tenant, attached.repository, attached.digest, stage, refusal, tuple(checks))


def _built(attached: Attached, tenant: str, terms: Terms, now: datetime) -> tuple[list[Check], Proof | None]:
    builders, expected = attempt(
        "builders", f"somebody is trusted to build for {tenant}", lambda: terms.builders(tenant), str
    )
    if expected is None:
        return [builders, not_judged("provenance", "provenance by an expected builder", builders.found)], None
    return explain_proof(attached, terms.verifier, expected, now)


def _promoted(attached: Attached, stage: str, terms: Terms, now: datetime) -> tuple[list[Check], Summary | None]:
    repository, digest, keys = attached.repository, attached.digest, terms.promotion_keys

    def said(envelope: Attachment) -> Check:
        check, _ = attempt(
            f"summary {envelope.sha256[:12]}",
            f"a promotion of {repository}@{digest}, signed by the promotion key",
            lambda: verify_summary(envelope.content, keys=keys, repository=repository, digest=digest, now=now),
            _approved,
            otherwise=Status.PASSED_OVER,
        )
        return check

    ended = attempt(
        "promotion",
        f"at least one of the summaries promotes it to {stage}",
        lambda: find_summary(attached, stage, keys=keys, now=now),
        _approved,
    )
    return [*map(said, attached.envelopes), ended[0]], ended[1]


def _approved(summary: Summary) -> str:
    return f"to {summary.stage}, approved by {summary.approver} at {moment(summary.verified_at)}"


def _denied(attached: Attached, terms: Terms) -> Check:
    denied = terms.deny_list
    minimum = denied.minimums.get(attached.repository)
    lowest = "no minimum version" if minimum is None else f"at least version {minimum}"
    expected = f"not denied, and {lowest} (deny list, version {denied.version})"
    check, _ = attempt(
        "deny list",
        expected,
        lambda: denied.require(attached.repository, attached.digest, attached.version),
        lambda _: "it is not denied" if attached.version is None else f"it is not denied, and has {attached.version}",
    )
    return check


def _decided(request: Request, terms: Terms, refusal: UmecError | None) -> Check:
    found = explain(terms.policies, request)
    decision, names = found.decision, ", ".join(found.decision.policies)
    facts = {
        "policies": list(decision.policies),
        "policy_sha256": decision.policy_digest,
        "facts": dict(request.facts),
        "turned_by": dict(found.turns),
    }
    if decision.allowed:
        return Check("policy", Status.HOLDS, _expected(terms), f"permitted by {names}", facts=facts)
    why = f"forbidden by {names}" if names else "; ".join(decision.errors) or "no policy permits it"
    turns = ", ".join(f"{name} = {value}" for name, value in found.turns.items())
    advice = f"Any of these facts alone would turn it around: {turns}." if turns else None
    code = None if refusal is None else refusal.code
    return Check("policy", Status.REFUSED, _expected(terms), why, code, advice, facts)


def _expected(terms: Terms) -> str:
    return f"permitted by the policy set sha256:{terms.policies.digest}"
