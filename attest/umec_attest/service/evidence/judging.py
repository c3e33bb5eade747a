"""From evidence to a judgement: steps 1 to 5 of a round (`umec_attest.service.evidence.service`). Changes nothing."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from umec_attest.appraisal import (
    Appraisal,
    AppraisalCache,
    BootJudged,
    allowed_forms,
    appraise,
    judge_boot,
    of_boot,
    outdated_finding,
)
from umec_attest.bootlog.findings import Finding
from umec_attest.clock import ClockState
from umec_attest.digests import parse_pcr_values
from umec_attest.errors import ImaRefused, StartLogRefused
from umec_attest.floors import VersionFloor, rollback_finding
from umec_attest.ima import RuntimeJudged, RuntimePolicy
from umec_attest.quote import VerifiedQuote, verify_quote
from umec_attest.reference import ReferenceSet, Versions
from umec_attest.resets import ResetWatch, next_watch, reset_finding
from umec_attest.service.errors import AssignmentMissing, EvidenceReplayed, NonceSuperseded
from umec_attest.service.evidence.challenge import Challenge, ChallengeSeal
from umec_attest.service.evidence.keys import known_keys
from umec_attest.service.evidence.logs import BootLogs, SentLog
from umec_attest.service.evidence.rules import RoundRules, selection_of
from umec_attest.service.evidence.runtime_lists import RuntimeLists
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.start_logs import judge_start_log, wanted_starts
from umec_attest.service.evidence.state import NodeState
from umec_attest.service.nodes.schemas import NodeClass
from umec_attest.service.references.filed import FiledReference, FiledReferences, FiledVersions, Identity
from umec_attest.starts.judge import StartsJudged
from umec_core.errors import UmecError
from umec_policies import PolicySet

__all__ = ["Asked", "Judge", "Judged", "check_round"]


class Asked(NamedTuple):
    """The PCRs that a quote has to cover, and from which entry on the list of what ran is wanted (None: not at all).

    `starts_from` is the same of the log of starts.
    """

    pcrs: tuple[int, ...]
    runtime_from: int | None
    starts_from: int | None


@dataclass(frozen=True, slots=True)
class Judged:
    """Evidence that is authentic and judged, before it has an effect. Only `Judge` makes one.

    `node` is what the judgement began with, `newest` identifies the newest version of its image and `reference` is the
    version that it was judged by, `until` when an older one stops to count, `log_replayed` whether the boot log holds
    for the quote, `watch` what is known of the boots of an open box after it.
    """

    node: NodeState
    now: datetime
    request: EvidenceRequest
    challenge: Challenge
    nonce: bytes
    quote: VerifiedQuote
    log: SentLog
    log_replayed: bool
    newest: Identity
    reference: ReferenceSet
    until: datetime | None
    appraisal: Appraisal
    watch: ResetWatch | None
    runtime: RuntimeJudged | ImaRefused | None
    starts: StartsJudged | StartLogRefused | None
    evidence_sha256: str


def check_round(node: NodeState, challenge: Challenge, nonce: bytes, *, policy: str, asked: Asked) -> None:
    """Refuse an answer that counted already, and one to a challenge of another round or policy, or for else (1)."""
    if nonce == node.answered:
        raise EvidenceReplayed("the challenge was answered already", advice="ask for a new challenge")
    if (challenge.round, challenge.policy) != (node.rounds, policy):
        raise NonceSuperseded("the challenge is of another round or policy", advice="ask for a new challenge")
    if Asked(challenge.pcrs, challenge.runtime_from, challenge.starts_from) != asked:  # else it would be missed
        raise NonceSuperseded("meanwhile something else is asked for", advice="ask for a new challenge")


class Judge:
    """Judges evidence by what is filed: keys, boot logs, reference sets, policies."""

    def __init__(
        self,
        references: FiledReferences,
        logs: BootLogs,
        *,
        rules: RoundRules,
        seal: ChallengeSeal,
        policies: PolicySet,
    ) -> None:
        self._references = references
        self._logs = logs
        self._rules = rules
        self._seal = seal
        self._policies = policies
        self._boots = AppraisalCache()
        self._lists = RuntimeLists()

    async def asked(self, node: NodeState, filed: FiledReference | None, now: datetime) -> Asked:
        """Return what a node is asked for now."""
        return self._asked(node, await self._versions(node, filed, now), now)

    def _asked(self, node: NodeState, found: FiledVersions | UmecError, now: datetime) -> Asked:
        if isinstance(found, UmecError):  # which `judge` raises where it counts
            return Asked(self._rules.pcrs, None, None)
        newest, runtime_from = found.versions.newest, self._lists.wanted(node, _policies(found.versions, now))
        return Asked(self._rules.asked(newest), runtime_from, wanted_starts(node, newest))

    async def judge(
        self, node: NodeState, filed: FiledReference | None, request: EvidenceRequest, now: datetime
    ) -> Judged:
        """Return authentic evidence with its appraisal, or raise why it is none that can be judged."""
        keys, found = known_keys(node), await self._versions(node, filed, now)
        asked = self._asked(node, found, now)
        challenge, nonce = self._seal.open(request.challenge, node=node.id, ak=keys.ak_name, now=now)  # 1
        check_round(node, challenge, nonce, policy=self._policies.digest, asked=asked)
        quote = verify_quote(  # 2
            attest=request.quote,
            signature=request.signature,
            ak=keys.ak,
            ak_parent=keys.parent,
            nonce=nonce,
            selection=selection_of(asked.pcrs),
            pcrs=parse_pcr_values(request.pcrs),
        )
        log = self._logs.of(node, request, quote)  # 3
        if isinstance(found, UmecError):  # 4
            raise found
        versions = found.versions
        reference = versions.match(quote.pcrs, now)
        boot = self._boots.get(log.sha256, quote, reference)
        if boot is None:
            allowed = allowed_forms(quote, reference)
            # 3, unless this very boot was judged before
            outcome = await self._logs.replayed(log, of_boot(quote, reference), allowed)
            boot = self._boots.put(log.sha256, judge_boot(quote, outcome, reference))
        runtime = self._lists.judge(node, request, quote, reference.runtime, _policies(versions, now))  # 3
        starts = judge_start_log(  # 3
            node,
            request,
            quote,
            reference,
            rules=self._rules.decisions,
            asked_at=challenge.expires_at - self._rules.challenge,
            now=now,
        )
        watch = _watch(node, quote, now)
        appraisal = appraise(  # 5
            node=node.id,
            quote=quote,
            log=boot,
            reference=reference,
            policies=self._policies,
            previous=None if node.clock_state is None else ClockState(**json.loads(node.clock_state)),
            now=now,
            runtime=runtime,
            starts=starts,
            unannounced=None if watch is None else reset_finding(watch),
            version=await self._about_version(node, found, reference, boot, quote, now),
        )
        return Judged(
            node=node,
            now=now,
            request=request,
            challenge=challenge,
            nonce=nonce,
            quote=quote,
            log=log,
            log_replayed=boot.facts is not None,
            newest=found.filed.identity,
            reference=reference,
            until=versions.until(reference),
            appraisal=appraisal,
            watch=watch,
            runtime=runtime,
            starts=starts,
            evidence_sha256=_digest(request, log),
        )

    async def _versions(
        self, node: NodeState, filed: FiledReference | None, now: datetime
    ) -> FiledVersions | UmecError:
        """Return the versions of a node's image that may count, or why there is none."""
        if node.image is None:
            return AssignmentMissing(f"nobody has said which image {node.id} runs", advice="an operator approves it")
        try:
            return await self._references.versions(node.image, filed, now)
        except UmecError as error:
            return error

    async def _about_version(
        self,
        node: NodeState,
        found: FiledVersions,
        reference: ReferenceSet,
        boot: BootJudged,
        quote: VerifiedQuote,
        now: datetime,
    ) -> Finding | None:
        """Return what is wrong with the version that a node runs: it went back to it, or it does not count any more."""
        rollback = rollback_finding(VersionFloor.from_json(node.version_floor), reference.name, reference.version)
        if rollback is not None or not any(item.finding.id.startswith("pcr-") for item in boot.findings):
            return rollback
        versions = await self._references.with_replaced(found.filed, found.versions.newest)
        return outdated_finding(versions, quote, now)


def _policies(versions: Versions, now: datetime) -> list[RuntimePolicy]:
    """Return what the versions that count say may run."""
    return [held.runtime for held in versions.held(now) if held.runtime is not None]


def _watch(node: NodeState, quote: VerifiedQuote, now: datetime) -> ResetWatch | None:
    """Return what is known of a node's boots after this quote; nobody watches those of a standard node."""
    if node.node_class != NodeClass.OPEN_BOX.value:
        return None
    clock = quote.clock_info
    return next_watch(ResetWatch.from_json(node.reset_watch), clock.reset_count, clock.restart_count, now)


def _digest(request: EvidenceRequest, log: SentLog) -> str:
    """Return the SHA-256 (hex) over the evidence: quote, signature and the hash of the boot log, each by its digest."""
    parts = (hashlib.sha256(request.quote).digest(), hashlib.sha256(request.signature).digest())
    return hashlib.sha256(b"".join((*parts, bytes.fromhex(log.sha256)))).hexdigest()
