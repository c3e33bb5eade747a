"""Rounds: challenge, evidence, verdict, standing, result.

The order in which evidence is checked:
    1. freshness      our challenge, for this node, AK, round and policy, in time and not answered before
    2. authenticity   the quote, by the enrolled AK (`umec_attest.quote`)
    3. logs           the boot log of this boot, the list of what ran since and the log of starts of applications,
                      replayed against the quote
    4. reference      the newest signed set of the image that the node is to run, or an older one in its grace: the
                      one whose PCR values the quote has, as a whole
    5. appraisal      findings, verdict, trust vector, decided by policies
    6. effect         round, standing, generation, feed, result and audit in one transaction, which looks again
                      whether 1 and 4 still hold: what an operator decided meanwhile wins
`judging` does 1 to 5, `effects` does 6. What fails in 1 to 4 says nothing about the node's state, so it changes
nothing: otherwise anybody could fell a node.

A result is signed where none lives for long enough, or where what it says has changed; else the node gets the one that
lives, whose `eat_nonce` and `evidence_sha256` are those of its own round. A steady round signs and logs nothing.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.errors import BootLogRequired, NodeRevoked, NodeUnknown, RuntimeListContinues
from umec_attest.service.evidence.challenge import Challenge, ChallengeSeal
from umec_attest.service.evidence.effects import Effect, Effects, shown
from umec_attest.service.evidence.judging import Judge
from umec_attest.service.evidence.keys import known_keys
from umec_attest.service.evidence.logs import BootLogs, forget_logs
from umec_attest.service.evidence.results import Results
from umec_attest.service.evidence.room import Room
from umec_attest.service.evidence.rules import RoundRules
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.start_logs import begun_anew
from umec_attest.service.evidence.state import NodeState, Seen, look_at
from umec_attest.service.evidence.together import Together
from umec_attest.service.policies import LoadedPolicies
from umec_attest.service.references.filed import FiledReference, FiledReferences, Identity
from umec_attest.service.refusals import Refusals
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import NodeRow
from umec_attest.service.wire import encode, instant
from umec_attest.starts.checkpoint import StartCheckpoint
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["RoundRules", "RoundService"]

SALT_SIZE: Final = 16
"""Bytes of randomness in a challenge, from which its nonce is derived."""

MAX_CHALLENGES: Final = 256
MAX_EVIDENCE: Final = 1024
"""Under way at once: of challenges half a second's worth, so that who gets one also gets a verdict in time; of evidence
what they bring, and of memory what so many bodies take."""

MOST: Final = 256
"""Nodes that one query reads."""

_Seen = tuple[NodeState, FiledReference | None]
"""A node, and the newest reference set of its image."""


class RoundService:
    """Asks nodes for evidence, and judges it."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        ledger: StandingLedger,
        refusals: Refusals,
        references: FiledReferences,
        *,
        rules: RoundRules,
        seal: ChallengeSeal,
        key: EllipticCurvePrivateKey,
        policies: LoadedPolicies,
        clock: Clock,
    ) -> None:
        self._store = store
        self._refusals = refusals
        self._references = references
        self._rules = rules
        self._seal = seal
        self._policies = policies.policies
        self._clock = clock
        self._judge = Judge(references, BootLogs(store), rules=rules, seal=seal, policies=self._policies)
        self._effects = Effects(
            store, audit, ledger, references, Results(key, rules), rules=rules, policies_version=policies.version
        )
        self._challenges, self._evidence = Room(MAX_CHALLENGES), Room(MAX_EVIDENCE)
        self._looks = Together(self._look_at, most=MOST)

    async def challenge(self, node_id: str) -> dict[str, Any]:
        """Return a fresh challenge for a node; nothing is kept of it."""
        with self._challenges.taken():
            node, filed = await self._looks.do(node_id)
        now = self._clock()
        asked = await self._judge.asked(node, filed, now)
        challenge = Challenge(
            node=node.id,
            ak=known_keys(node).ak_name,
            pcrs=asked.pcrs,
            runtime_from=asked.runtime_from,
            policy=self._policies.digest,
            round=node.rounds,
            expires_at=now + self._rules.challenge,
            salt=secrets.token_hex(SALT_SIZE),
            starts_from=asked.starts_from,
        )
        token, nonce = self._seal.seal(challenge)
        return {
            "challenge": token,
            "nonce": encode(nonce),
            "pcrs": {"sha256": list(challenge.pcrs)},
            "boot_log": _wanted_log(node),
            "ima": None if asked.runtime_from is None else {"from": asked.runtime_from},
            "starts": None if asked.starts_from is None else {"from": asked.starts_from},
            "deadline": instant(challenge.expires_at),
            "round_seconds": self._rules.round.total_seconds(),
        }

    async def submit(self, request: EvidenceRequest, *, address: str) -> dict[str, Any]:
        """Judge evidence and return the verdict, the standing after it, and a signed result where the node stands."""
        with self._evidence.taken():
            return await self._submit(request, address)

    async def _submit(self, request: EvidenceRequest, address: str) -> dict[str, Any]:
        now = self._clock()
        try:
            effect = await self._round(request, now)
        except UmecError as error:
            if not isinstance(error, RuntimeListContinues):
                await self._refusals.stranger("evidence.submit", request.node, error, now, address=address)
            raise
        return {
            **shown(effect.judged.appraisal),
            "standing": effect.node.standing,
            "generation": effect.node.generation,
            "ear": effect.node.result,
        }

    async def _round(self, request: EvidenceRequest, now: datetime) -> Effect:
        node, filed = await self._looks.do(request.node)
        try:
            judged = await self._judge.judge(node, filed, request, now)
        except RuntimeListContinues as part:
            await self._keep_part(node, part)
            raise
        except BootLogRequired as required:
            await self._ask_for_log(node, booted=required.booted)
            raise
        return await self._effects.apply(judged)

    async def _look_at(self, nodes: Sequence[str]) -> Sequence[_Seen | Exception]:
        """Return each node that may have rounds, and what its image may measure."""
        seen = await look_at(self._store, set(nodes))
        filed = {
            (one.node.image, one.reference): None
            for one in seen.values()
            if one.node.image is not None and one.reference is not None
        }
        sets = {each: await self._references.filed(*each) for each in filed}
        return [_seen(node, seen.get(node), sets) for node in nodes]

    async def _keep_part(self, judged: NodeState, part: RuntimeListContinues) -> None:
        """Let the next challenge ask for what follows a part of a list."""

        async def work(session: AsyncSession) -> None:
            node = await _as_judged(session, judged)
            if node is not None:
                kept = json.dumps(part.checkpoint.to_json())
                if isinstance(part.checkpoint, StartCheckpoint):
                    node.start_checkpoint = kept
                else:
                    node.runtime_checkpoint = kept

        await self._store.write(work)

    async def _ask_for_log(self, judged: NodeState, *, booted: bool) -> None:
        """Let the next challenge ask for whole logs: an authentic quote said that what is kept is of no use.

        Of starts only after a boot: those before it were judged by when they took place, which is known once.
        """

        async def work(session: AsyncSession) -> None:
            node = await _as_judged(session, judged)
            if node is not None:
                former, node.boot_log_sha256, node.runtime_checkpoint = node.boot_log_sha256, None, None
                if booted:
                    node.start_checkpoint = begun_anew(node.start_checkpoint)
                await session.flush()
                await (await session.connection()).run_sync(forget_logs, [former])

        await self._store.write(work)


async def _as_judged(session: AsyncSession, judged: NodeState) -> NodeRow | None:
    """Return a node's row, locked; None where another round counted meanwhile, or other keys: they know better."""
    node = await session.get(NodeRow, judged.id, with_for_update=True)
    same = node is not None and (node.ak_public, node.rounds) == (judged.ak_public, judged.rounds)
    return node if same else None


def _seen(node_id: str, seen: Seen | None, sets: Mapping[tuple[str, Identity], FiledReference]) -> _Seen | Exception:
    if seen is None:
        return NodeUnknown(f"there is no node {node_id}")
    node = seen.node
    if node.standing == Standing.REVOKED.value:
        return NodeRevoked(f"node {node_id} is revoked", advice="an operator makes a ticket to enrol it anew")
    if node.image is None or seen.reference is None:
        return node, None
    return node, sets[node.image, seen.reference]


def _wanted_log(node: NodeState) -> str:
    """Return how the boot log is wanted: whole where it is not known, or where the way back is a reboot."""
    known = node.boot_log_sha256 is not None and Standing(node.standing).stands
    return "digest" if known else "full"
