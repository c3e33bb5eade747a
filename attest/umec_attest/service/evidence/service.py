"""Rounds: challenge, evidence, verdict, standing, result.

The order in which evidence is checked:
    1. freshness      our challenge, for this node, AK, round and policy, in time and not answered before
    2. authenticity   the quote, by the enrolled AK (`umec_attest.quote`)
    3. boot log       the one of this boot, replayed against the quote
    4. reference      the newest signed set of the image that the node is to run
    5. appraisal      findings, verdict, trust vector, decided by policies
    6. effect         used-mark, standing, generation, feed, result and audit in one transaction, which looks again
                      whether 1 and 4 still hold: what an operator decided meanwhile wins
A result is signed where none lives for long enough, or where what it says has changed; else the node gets the one that
lives, whose `eat_nonce` and `evidence_sha256` are those of its own round. A steady round signs and logs nothing.
What fails in 1 to 4 says nothing about the node's state, so it changes nothing: otherwise anybody could fell a node.
"""

import dataclasses
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.appraisal import Appraisal, Verdict, appraise
from umec_attest.clock import ClockState
from umec_attest.digests import parse_pcr_values
from umec_attest.ear import EAR_TYPE, ear_claims
from umec_attest.quote import VerifiedQuote, verify_quote
from umec_attest.reference import ReferenceSet
from umec_attest.service.errors import (
    AssignmentMissing,
    BootLogRequired,
    EvidenceReplayed,
    EvidenceStale,
    NodeRevoked,
    NodeUnknown,
    NonceSuperseded,
)
from umec_attest.service.evidence.challenge import Challenge, ChallengeSeal
from umec_attest.service.evidence.keys import known_keys
from umec_attest.service.evidence.logs import BootLogs, JudgedLog, keep_log
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.transition import next_standing
from umec_attest.service.references.service import FiledReference, ReferenceService
from umec_attest.service.refusals import Refusals
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import NodeRow, UsedChallengeRow
from umec_attest.service.wire import encode, instant
from umec_attest.tpm.pcr import PcrSelection
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.jose import public_jwk, sign_jwt, thumbprint
from umec_core.standing import Standing
from umec_core.store import Store
from umec_policies import PolicySet

__all__ = ["RoundRules", "RoundService"]

SALT_SIZE: Final = 16
"""Bytes of randomness in a challenge, from which its nonce is derived."""


@dataclass(frozen=True, slots=True)
class RoundRules:
    """How rounds go: who signs results for whom, which PCRs, how long."""

    issuer: str
    audience: str
    pcrs: tuple[int, ...]
    round: timedelta
    silent_rounds: int
    challenge: timedelta
    result: timedelta


@dataclass(frozen=True, slots=True)
class _Judged:
    """Evidence that is authentic and judged, before it has an effect."""

    node: NodeRow
    challenge: Challenge
    nonce: bytes
    quote: VerifiedQuote
    log: JudgedLog
    reference: ReferenceSet
    appraisal: Appraisal
    evidence_sha256: str


@dataclass(frozen=True, slots=True)
class _Effect:
    """What became of a node by a round; `result` is None where it does not stand."""

    standing: Standing
    generation: int
    result: str | None


class RoundService:
    """Asks nodes for evidence, and judges it."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        ledger: StandingLedger,
        refusals: Refusals,
        references: ReferenceService,
        *,
        rules: RoundRules,
        seal: ChallengeSeal,
        key: EllipticCurvePrivateKey,
        policies: PolicySet,
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._ledger = ledger
        self._refusals = refusals
        self._references = references
        self._rules = rules
        self._selection = PcrSelection.from_mapping({"sha256": list(rules.pcrs)})
        self._seal = seal
        self._key = key
        self._signer = thumbprint(public_jwk(key.public_key()))
        self._policies = policies
        self._clock = clock
        self._logs = BootLogs(store)

    async def challenge(self, node_id: str) -> dict[str, Any]:
        """Return a fresh challenge for a node; nothing is kept of it."""
        now = self._clock()
        async with self._store.read() as session:
            node = await self._node(session, node_id)
        challenge = Challenge(
            node=node.id,
            ak=known_keys(node).ak_name,
            pcrs=self._rules.pcrs,
            policy=self._policies.digest,
            round=node.rounds,
            expires_at=now + self._rules.challenge,
            salt=secrets.token_hex(SALT_SIZE),
        )
        token, nonce = self._seal.seal(challenge)
        return {
            "challenge": token,
            "nonce": encode(nonce),
            "pcrs": {"sha256": list(self._rules.pcrs)},
            "boot_log": _wanted_log(node),
            "deadline": instant(challenge.expires_at),
            "round_seconds": self._rules.round.total_seconds(),
        }

    async def submit(self, request: EvidenceRequest, *, address: str) -> dict[str, Any]:
        """Judge evidence and return the verdict, the standing after it, and a signed result where the node stands."""
        now = self._clock()
        try:
            judged = await self._judge(request, now)
            effect = await self._store.write(lambda session: self._apply(session, judged, now))
        except BootLogRequired as error:
            await self._ask_for_log(request.node)
            await self._refusals.stranger("evidence.submit", request.node, error, now, address=address)
            raise
        except UmecError as error:
            await self._refusals.stranger("evidence.submit", request.node, error, now, address=address)
            raise
        if effect.generation != judged.node.generation:  # a round that changes nothing wakes nobody
            self._ledger.announce()
        return {
            **_shown(judged.appraisal),
            "standing": effect.standing.value,
            "generation": effect.generation,
            "ear": effect.result,
        }

    async def _node(self, session: AsyncSession, node_id: str) -> NodeRow:
        node = await session.get(NodeRow, node_id)
        if node is None:
            raise NodeUnknown(f"there is no node {node_id}")
        if node.standing == Standing.REVOKED.value:
            raise NodeRevoked(f"node {node_id} is revoked", advice="an operator makes a ticket to enrol it anew")
        return node

    async def _judge(self, request: EvidenceRequest, now: datetime) -> _Judged:
        async with self._store.read() as session:
            node = await self._node(session, request.node)
            keys = known_keys(node)
            challenge, nonce = self._seal.open(request.challenge, node=node.id, ak=keys.ak_name, now=now)  # 1
            if challenge.round != node.rounds:  # else the transaction says whether it was answered
                await self._check_round(session, node, challenge, nonce)
            filed = None if node.image is None else await self._references.newest(session, node.image)
        quote = verify_quote(  # 2
            attest=request.quote,
            signature=request.signature,
            ak=keys.ak,
            ak_parent=keys.parent,
            nonce=nonce,
            selection=self._selection,
            pcrs=parse_pcr_values(request.pcrs),
        )
        log = await self._logs.judge(node, request, quote)  # 3
        reference = self._reference(node, filed, now)  # 4
        appraisal = appraise(  # 5
            node=node.id,
            quote=quote,
            log=log.outcome,
            reference=reference,
            policies=self._policies,
            previous=None if node.clock_state is None else ClockState(**json.loads(node.clock_state)),
            now=now,
        )
        return _Judged(node, challenge, nonce, quote, log, reference, appraisal, _digest(request, log))

    async def _check_round(self, session: AsyncSession, node: NodeRow, challenge: Challenge, nonce: bytes) -> None:
        """Refuse an answer that counted, or one of another round or policy (1). The transaction decides."""
        if await session.get(UsedChallengeRow, nonce) is not None:
            raise EvidenceReplayed("the challenge was answered already", advice="ask for a new challenge")
        asked = (challenge.round, challenge.policy, challenge.pcrs)
        if asked != (node.rounds, self._policies.digest, self._rules.pcrs):
            raise NonceSuperseded("the challenge is of another round or policy", advice="ask for a new challenge")

    def _reference(self, node: NodeRow, filed: FiledReference | None, now: datetime) -> ReferenceSet:
        if node.image is None:
            raise AssignmentMissing(f"nobody has said which image {node.id} runs", advice="an operator approves it")
        return self._references.verified(node.image, filed, now)

    async def _check_same(self, session: AsyncSession, node: NodeRow, judged: _Judged) -> None:
        """Refuse what was judged by the reference set of another image, or one that does not count any more (4)."""
        newest = None if node.image is None else await self._references.identity(session, node.image)
        held = (judged.reference.version, judged.reference.sha256)
        if newest != held:
            raise EvidenceStale(
                "meanwhile the node was given another image or reference set", advice="ask for a new challenge"
            )

    async def _ask_for_log(self, node_id: str) -> None:
        """Let the next challenge ask for the whole log: an authentic quote said that the kept one is of no use."""

        async def work(session: AsyncSession) -> None:
            node = await session.get(NodeRow, node_id, with_for_update=True)
            if node is not None:
                node.boot_log_sha256 = None

        await self._store.write(work)

    async def _apply(self, session: AsyncSession, judged: _Judged, now: datetime) -> _Effect:
        """Give evidence its effect (6). Of two answers to one challenge, the transaction lets exactly one through."""
        node = await session.get_one(NodeRow, judged.node.id, with_for_update=True)  # no node is ever deleted
        if node.ak_public != judged.node.ak_public:
            raise NonceSuperseded("the node was enrolled anew meanwhile", advice="ask for a new challenge")
        if node.standing == Standing.REVOKED.value:
            raise NodeRevoked(f"node {node.id} is revoked")
        await self._check_round(session, node, judged.challenge, judged.nonce)
        await self._check_same(session, node, judged)
        session.add(UsedChallengeRow(nonce=judged.nonce, expires_at=judged.challenge.expires_at))
        await keep_log(session, judged.log, now)
        standing = _next(node, judged)
        await self._ledger.change(session, node, standing, actor="verifier", reason=_reason(judged.appraisal), now=now)
        self._remember(node, judged, standing, now)
        if not standing.stands:
            node.result = node.result_basis = node.result_expires_at = None
        elif not self._result_lives(node, judged, now):
            await self._issue(session, node, judged, now)
        return _Effect(standing, node.generation, node.result)

    def _result_lives(self, node: NodeRow, judged: _Judged, now: datetime) -> bool:
        """Tell whether the last result says what a new one would, for half of a life and two rounds to come."""
        if node.result_expires_at is None:
            return False
        least = max(self._rules.result / 2, 2 * self._rules.round)
        return node.result_expires_at - now >= least and node.result_basis == self._basis(node, judged)

    def _remember(self, node: NodeRow, judged: _Judged, standing: Standing, now: datetime) -> None:
        appraisal = judged.appraisal
        node.rounds += 1
        node.clock_state = json.dumps(dataclasses.asdict(appraisal.clock_state))
        if not isinstance(judged.log.outcome, Exception):
            node.boot_log_sha256 = judged.log.sha256
            node.boot_log_reset = judged.quote.clock_info.reset_count
        else:
            node.boot_log_sha256 = None
        node.deadline = now + self._rules.silent_rounds * self._rules.round if standing.stands else None
        node.last_round = json.dumps(
            {
                "at": instant(now),
                **_shown(appraisal),
                "policies": list(appraisal.policy_ids),
                "policy_sha256": appraisal.policy_digest,
                "facts_sha256": appraisal.facts_digest,
                "reference": {"version": judged.reference.version, "sha256": judged.reference.sha256},
                "evidence_sha256": judged.evidence_sha256,
            }
        )

    def _basis(self, node: NodeRow, judged: _Judged) -> str:
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
            sorted(appraisal.trust_vector.items()),
            appraisal.policy_digest,
            judged.reference.version,
            judged.reference.sha256,
        )
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    async def _issue(self, session: AsyncSession, node: NodeRow, judged: _Judged, now: datetime) -> None:
        """Sign a result and write it down, in this order: the log tells of no result that was never made."""
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
            now=now,
            lifetime=self._rules.result,
        )
        node.result, node.result_basis = sign_jwt(claims, self._key, typ=EAR_TYPE), self._basis(node, judged)
        node.result_expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        await self._audit.append(
            session,
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
            now=now,
        )


def _next(node: NodeRow, judged: _Judged) -> Standing:
    """Return the standing after this round, and mark at which boot a node falls or has recovered."""
    reset_count, verdict = judged.quote.clock_info.reset_count, judged.appraisal.verdict
    standing = next_standing(
        Standing(node.standing),
        verdict,
        approved=node.approved,
        reset_count=reset_count,
        fell_at_reset=node.fell_at_reset,
    )
    if verdict is Verdict.CONTRAINDICATED:
        node.fell_at_reset = max(reset_count, node.fell_at_reset or 0)
    elif standing.stands:
        node.fell_at_reset = None
    return standing


def _wanted_log(node: NodeRow) -> str:
    """Return how the boot log is wanted: whole where it is not known, or where the way back is a reboot."""
    known = node.boot_log_sha256 is not None and Standing(node.standing).stands
    return "digest" if known else "full"


def _reason(appraisal: Appraisal) -> str:
    names = ", ".join(dict.fromkeys(finding.id for finding in appraisal.findings))
    return f"{appraisal.verdict.value}: {names}"[:500] if names else appraisal.verdict.value


def _shown(appraisal: Appraisal) -> dict[str, Any]:
    return {
        "verdict": appraisal.verdict.value,
        "findings": [finding.to_json() for finding in appraisal.findings],
        "trust_vector": dict(appraisal.trust_vector),
    }


def _digest(request: EvidenceRequest, log: JudgedLog) -> str:
    """Return the SHA-256 (hex) over the evidence: quote, signature and the hash of the boot log, each by its digest."""
    parts = (hashlib.sha256(request.quote).digest(), hashlib.sha256(request.signature).digest())
    return hashlib.sha256(b"".join((*parts, bytes.fromhex(log.sha256)))).hexdigest()
