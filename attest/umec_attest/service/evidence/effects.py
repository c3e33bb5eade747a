"""Step 6 of a round: what a judgement does to the node, many rounds in one transaction.

Each judgement began with a node as it was; here the row is read again and locked, and what does not hold any more is
refused: what an operator decided meanwhile wins. The number of the round is in the challenge and in the row, and the
round moves it on: of two answers to one challenge, exactly one counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, cast

from sqlalchemy import Connection, Table, bindparam, inspect, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as SqlTimeout

from umec_attest.appraisal import Appraisal, Verdict
from umec_attest.clock import ClockState
from umec_attest.floors import VersionFloor, next_floor
from umec_attest.service.errors import EvidenceStale, NodeRevoked, NonceSuperseded
from umec_attest.service.evidence.history import is_news, write_history
from umec_attest.service.evidence.judging import Asked, Judged, check_round
from umec_attest.service.evidence.logs import forget_logs, keep_logs
from umec_attest.service.evidence.results import Results
from umec_attest.service.evidence.rules import RoundRules
from umec_attest.service.evidence.runtime_lists import kept_checkpoint
from umec_attest.service.evidence.start_logs import kept_starts
from umec_attest.service.evidence.state import NodeState, read_states
from umec_attest.service.evidence.together import Together
from umec_attest.service.evidence.transition import next_standing
from umec_attest.service.policies import policies_in_use
from umec_attest.service.references.filed import FiledReferences, Identity
from umec_attest.service.standings.ledger import Change, StandingLedger
from umec_attest.service.tables import NodeRow
from umec_attest.service.wire import instant
from umec_core.audit import AuditEntry, AuditLog
from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["Effect", "Effects", "shown"]

MOST: Final = 256
"""Rounds in one transaction: some 100 ms of work."""

APART: Final = 0.01
"""Seconds from one transaction to the next: what it costs beside its rounds is shared by all that come meanwhile."""

_NO_DATABASE: Final = (InterfaceError, OperationalError, SqlTimeout, OSError)
"""What says nothing of a round: to try each by itself would let all wait for as many failures more."""

_CLOCK: Final = tuple(field.name for field in fields(ClockState))
_TABLE: Final = cast("Table", inspect(NodeRow).local_table)
_WRITTEN: Final = (
    "rounds",
    "answered",
    "clock_state",
    "fell_at_reset",
    "reset_watch",
    "version_floor",
    "boot_log_sha256",
    "boot_log_reset",
    "runtime_checkpoint",
    "start_checkpoint",
    "last_round",
    "result",
    "result_basis",
    "result_expires_at",
)
"""What a round writes of a node's state; its standing is written by the ledger alone."""
_UPDATE: Final = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("node"))
    .values({name: bindparam(f"new_{name}") for name in (*_WRITTEN, "deadline", "round_at", "evidence_sha256")})
)


@dataclass(frozen=True, slots=True)
class Effect:
    """What became of a node by a round: the node after it, its change of standing if it was one, and what to tell."""

    judged: Judged
    node: NodeState
    change: Change | None
    entry: AuditEntry | None
    news: bool


class Effects:
    """Gives judgements their effect; those that wait at one moment share a transaction."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        ledger: StandingLedger,
        references: FiledReferences,
        results: Results,
        *,
        rules: RoundRules,
        policies_version: int,
    ) -> None:
        """`policies_version` is that of the signed policies by which this process judges (0: they are not signed)."""
        self._store = store
        self._audit = audit
        self._ledger = ledger
        self._references = references
        self._results = results
        self._rules = rules
        self._policies_version = policies_version
        self._together = Together(self._batch, most=MOST, apart=APART)

    async def apply(self, judged: Judged) -> Effect:
        """Give a judgement its effect, durably, or raise why it has none (and changes nothing)."""
        return await self._together.do(judged)

    async def _batch(self, rounds: Sequence[Judged]) -> Sequence[Effect | Exception]:
        try:
            effects = await self._store.write_plain(lambda connection: self._apply(connection, rounds))
        except (UmecError, *_NO_DATABASE):
            raise
        except Exception:
            if len(rounds) == 1:
                raise
            return [await self._alone(judged) for judged in rounds]  # what the database does not take of one
        if any(isinstance(effect, Effect) and effect.change is not None for effect in effects):
            self._ledger.announce()  # a round that changes nothing wakes nobody
        return effects

    async def _alone(self, judged: Judged) -> Effect | Exception:
        try:
            return (await self._batch([judged]))[0]
        except Exception as error:  # noqa: BLE001 - whoever handed it in is told
            return error

    def _apply(self, connection: Connection, rounds: Sequence[Judged]) -> Sequence[Effect | Exception]:
        """Decide for one after the other, each by what the ones before it left; then write all."""
        self._check_policies(connection)
        nodes = dict(read_states(connection, {judged.node.id for judged in rounds}, lock=True))
        images = {node.image for node in nodes.values() if node.image is not None}
        filed = self._references.identities(connection, images)
        answers: list[Effect | Exception] = []
        for judged in rounds:
            try:
                node = nodes[judged.node.id]  # no node is ever deleted
                _check_unchanged(node, judged, filed)
                effect = self._effect(node, judged)
            except UmecError as error:
                answers.append(error)
            else:
                nodes[node.id] = effect.node
                answers.append(effect)
        self._write(connection, [answer for answer in answers if isinstance(answer, Effect)])
        return answers

    def _check_policies(self, connection: Connection) -> None:
        """Refuse what was judged by older policies than another verifier has loaded."""
        version = policies_in_use(connection)
        if version > self._policies_version:
            raise EvidenceStale(
                f"policies of version {version} are in use, and this verifier has version {self._policies_version}",
                advice="name the newer bundle in attest.signed_policies of this verifier too, and restart it",
            )

    def _effect(self, node: NodeState, judged: Judged) -> Effect:
        standing, fell_at_reset = _next(node, judged)
        change = None
        if standing.value != node.standing:
            change = Change(
                node=node.id,
                tenant=node.tenant,
                before=node.standing,
                standing=standing.value,
                generation=node.generation + 1,
                reason=_reason(judged.appraisal),
                at=judged.now,
            )
        after = node._replace(
            standing=standing.value,
            generation=node.generation if change is None else change.generation,
            rounds=node.rounds + 1,
            answered=judged.nonce,
            clock_state=json.dumps({name: getattr(judged.appraisal.clock_state, name) for name in _CLOCK}),
            fell_at_reset=fell_at_reset,
            reset_watch=None if judged.watch is None else judged.watch.to_json(),
            version_floor=_floor(node, judged) if standing.stands else node.version_floor,
            boot_log_sha256=judged.log.sha256 if judged.log_replayed else None,
            boot_log_reset=judged.quote.clock_info.reset_count if judged.log_replayed else node.boot_log_reset,
            runtime_checkpoint=kept_checkpoint(judged.runtime),
            start_checkpoint=kept_starts(node, judged.starts),
            last_round=json.dumps(_said(judged)),
        )
        issued = self._results.after(after, judged)
        return Effect(judged, issued.node, change, issued.entry, is_news(node, issued.node, judged.appraisal))

    def _write(self, connection: Connection, effects: Sequence[Effect]) -> None:
        if not effects:
            return
        logs = {
            effect.judged.log.sha256: effect.judged.log.content
            for effect in effects
            if effect.judged.log.content is not None and effect.judged.log_replayed
        }
        keep_logs(connection, logs, effects[0].judged.now)
        changes = [effect.change for effect in effects if effect.change is not None]
        self._ledger.change_all(connection, changes, actor="verifier")
        issued = [effect.entry for effect in effects if effect.entry is not None]
        if issued:
            self._audit.append_plain(connection, issued)
        news = [(effect.node, effect.judged) for effect in effects if effect.news]
        write_history(connection, news)
        connection.execute(_UPDATE, [self._columns(effect) for effect in effects])
        former = ((effect.judged.node.boot_log_sha256, effect.node.boot_log_sha256) for effect in effects)
        forget_logs(connection, (before for before, after in former if before != after))

    def _columns(self, effect: Effect) -> dict[str, Any]:
        node, now = effect.node, effect.judged.now
        deadline = now + self._rules.silent_rounds * self._rules.round if Standing(node.standing).stands else None
        return {
            "node": node.id,
            **{f"new_{name}": getattr(node, name) for name in _WRITTEN},
            "new_deadline": deadline,
            "new_round_at": now,
            "new_evidence_sha256": effect.judged.evidence_sha256,
        }


def _check_unchanged(node: NodeState, judged: Judged, filed: Mapping[str, Identity]) -> None:
    """Refuse what does not hold any more (1, 4): keys, standing, round, announcements, floor, image, reference set."""
    if node.ak_public != judged.node.ak_public:
        raise NonceSuperseded("the node was enrolled anew meanwhile", advice="ask for a new challenge")
    if node.standing == Standing.REVOKED.value:
        raise NodeRevoked(f"node {node.id} is revoked")
    challenge = judged.challenge
    asked = Asked(challenge.pcrs, challenge.runtime_from, challenge.starts_from)
    check_round(node, challenge, judged.nonce, policy=challenge.policy, asked=asked)
    if (node.node_class, node.reset_watch) != (judged.node.node_class, judged.node.reset_watch):
        raise EvidenceStale("meanwhile a reboot was announced, or a reset cleared", advice="ask for a new challenge")
    if node.version_floor != judged.node.version_floor:
        raise EvidenceStale("meanwhile the node was allowed to go back", advice="ask for a new challenge")
    newest = None if node.image is None else filed.get(node.image)
    if newest != judged.newest:
        raise EvidenceStale(
            "meanwhile the node was given another image or reference set", advice="ask for a new challenge"
        )


def _next(node: NodeState, judged: Judged) -> tuple[Standing, int | None]:
    """Return the standing after this round, and at which boot the node fell (None: it did not, or has recovered)."""
    reset_count, verdict = judged.quote.clock_info.reset_count, judged.appraisal.verdict
    standing = next_standing(
        Standing(node.standing),
        verdict,
        approved=node.approved,
        reset_count=reset_count,
        fell_at_reset=node.fell_at_reset,
    )
    if verdict is Verdict.CONTRAINDICATED:
        return standing, max(reset_count, node.fell_at_reset or 0)
    return standing, None if standing.stands else node.fell_at_reset


def _floor(node: NodeState, judged: Judged) -> str:
    """Return what is known of a node's versions after a round by which it stands."""
    known = VersionFloor.from_json(node.version_floor)
    after = next_floor(known, judged.reference.name, judged.reference.version, judged.now)
    return node.version_floor if after is known and node.version_floor is not None else after.to_json()


def shown(appraisal: Appraisal) -> dict[str, Any]:
    """Return what a node and its operators see of an appraisal."""
    return {
        "verdict": appraisal.verdict.value,
        "findings": [finding.to_json() for finding in appraisal.findings],
        "trust_vector": dict(appraisal.trust_vector),
    }


def _said(judged: Judged) -> dict[str, Any]:
    """Return what is kept of a round beside its time and its evidence."""
    appraisal = judged.appraisal
    return {
        **shown(appraisal),
        "policies": list(appraisal.policy_ids),
        "policy_sha256": appraisal.policy_digest,
        "facts_sha256": appraisal.facts_digest,
        "reference": {
            "version": judged.reference.version,
            "sha256": judged.reference.sha256,
            **({} if judged.until is None else {"until": instant(judged.until)}),
        },
    }


def _reason(appraisal: Appraisal) -> str:
    """Name each kind of finding once, with the stages of the boot that it is about."""
    found: dict[str, dict[str, None]] = {}
    for finding in appraisal.findings:
        found.setdefault(finding.id, {}).update(dict.fromkeys(finding.stages))
    said = ", ".join(f"{name} ({', '.join(stages)})" if stages else name for name, stages in found.items())
    return f"{appraisal.verdict.value}: {said}"[:500] if said else appraisal.verdict.value
