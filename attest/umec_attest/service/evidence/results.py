"""Attestation results (EARs): when a new one is due, and making it."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from umec_attest.ear import EAR_TYPE, ear_claims
from umec_attest.service.evidence.judging import Judged
from umec_attest.service.evidence.keys import known_keys
from umec_attest.service.evidence.rules import RoundRules
from umec_attest.service.evidence.state import NodeState
from umec_core.audit import AuditEntry
from umec_core.jose import public_jwk, sign_jwt, thumbprint
from umec_core.standing import Standing

__all__ = ["Issued", "Results"]


@dataclass(frozen=True, slots=True)
class Issued:
    """A node with the result that it has after a round, and what the audit log tells of it (None: nothing is new)."""

    node: NodeState
    entry: AuditEntry | None


class Results:
    """Signs results with the verifier's key."""

    def __init__(self, key: EllipticCurvePrivateKey, rules: RoundRules) -> None:
        self._key = key
        self._rules = rules
        self._signer = thumbprint(public_jwk(key.public_key()))

    def after(self, node: NodeState, judged: Judged) -> Issued:
        """Return a node, as it stands after a round, with its result: none, the one that lives, or a new one."""
        if not Standing(node.standing).stands:
            return Issued(node._replace(result=None, result_basis=None, result_expires_at=None), None)
        basis = self._basis(node, judged)
        if self._lives(node, basis, judged.now):
            return Issued(node, None)
        return self._issue(node, basis, judged)

    def _lives(self, node: NodeState, basis: str, now: datetime) -> bool:
        """Tell whether the last result says what a new one would, for half of a life and two rounds to come."""
        if node.result_expires_at is None:
            return False
        least = max(self._rules.result / 2, 2 * self._rules.round)
        return node.result_expires_at - now >= least and node.result_basis == basis

    def _basis(self, node: NodeState, judged: Judged) -> str:
        """Return the SHA-256 (hex) over all that a result says apart from its round and its time."""
        appraisal, rules = judged.appraisal, self._rules
        said = (
            self._signer,
            rules.issuer,
            rules.audience,
            node.node_key_public.hex(),
            node.tenant,
            node.standing,
            node.generation,
            appraisal.verdict.value,
            *sorted(appraisal.trust_vector.items()),
            appraisal.policy_digest,
            judged.reference.version,
            judged.reference.sha256,
        )
        return hashlib.sha256(repr(said).encode()).hexdigest()

    def _issue(self, node: NodeState, basis: str, judged: Judged) -> Issued:
        """Sign first, then tell: the log speaks of no result that was never made."""
        claims = ear_claims(
            issuer=self._rules.issuer,
            audience=self._rules.audience,
            node=node.id,
            tenant=node.tenant,
            jti=secrets.token_hex(16),
            nonce=judged.nonce,
            node_key_jwk=known_keys(node).node_key,
            appraisal=judged.appraisal,
            reference=judged.reference,
            standing=node.standing,
            generation=node.generation,
            evidence_sha256=judged.evidence_sha256,
            now=judged.now,
            lifetime=self._rules.result,
        )
        result = sign_jwt(claims, self._key, typ=EAR_TYPE)
        entry = AuditEntry(
            actor="verifier",
            action="result.issue",
            subject=node.id,
            outcome="done",
            facts={
                "jti": claims["jti"],
                "verdict": judged.appraisal.verdict.value,
                "generation": node.generation,
                "evidence_sha256": judged.evidence_sha256,
                "policy_sha256": judged.appraisal.policy_digest,
                "reference_sha256": judged.reference.sha256,
            },
            now=judged.now,
        )
        expires = datetime.fromtimestamp(claims["exp"], UTC)
        return Issued(node._replace(result=result, result_basis=basis, result_expires_at=expires), entry)
