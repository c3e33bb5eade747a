"""The attestation service, put together: rows, keys, nouns, routes, background work."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from fastapi import APIRouter, Depends, Query
from sqlalchemy import text

from umec_attest.ek_certificate import EkPolicy
from umec_attest.service.access import Access
from umec_attest.service.checkpoints.endpoints import checkpoints_router
from umec_attest.service.enrolments.endpoints import enrolments_router
from umec_attest.service.enrolments.service import EnrolmentService
from umec_attest.service.evidence.challenge import MAC_SIZE, ChallengeSeal
from umec_attest.service.evidence.endpoints import history_router, rounds_router
from umec_attest.service.evidence.history import History
from umec_attest.service.evidence.service import RoundRules, RoundService
from umec_attest.service.nodes.decisions import Decisions
from umec_attest.service.nodes.endpoints import nodes_router, reboots_router
from umec_attest.service.nodes.floors import FloorService
from umec_attest.service.nodes.reboots import RebootService
from umec_attest.service.nodes.service import NodeService
from umec_attest.service.policies import load_policies
from umec_attest.service.references.endpoints import references_router
from umec_attest.service.references.filed import FiledReferences
from umec_attest.service.references.owners import ImageOwners
from umec_attest.service.references.service import ReferenceService
from umec_attest.service.refusals import Refusals
from umec_attest.service.rotation.endpoints import rotation_router
from umec_attest.service.rotation.seal import RotationSeal
from umec_attest.service.rotation.service import RotationService
from umec_attest.service.settings import AttestSettings
from umec_attest.service.standings.endpoints import standings_router
from umec_attest.service.standings.feed import StandingFeed
from umec_attest.service.standings.lapse import SilenceWatch
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.standings.presence import Presence
from umec_attest.service.tables import AuditRow
from umec_attest.service.tending import Tending
from umec_attest.service.tickets.endpoints import tickets_router
from umec_attest.service.tickets.service import TicketService
from umec_attest.service.trust import load_bundle, load_keys, load_signers
from umec_attest.service.vault.cabinet import KEY_SIZE, Cabinet
from umec_attest.service.vault.endpoints import secrets_router
from umec_attest.service.vault.service import SecretService
from umec_attest.starts.decisions import DecisionRules
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.events import Events
from umec_core.keys import load_or_create_key, load_or_create_secret
from umec_core.store import Store
from umec_core.tokens import TokenVerifier
from umec_policies import PolicySet, load_default

__all__ = ["AUDIT_ORIGIN", "MIGRATIONS", "AttestService"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"
AUDIT_ORIGIN: Final = "umec/attest"
"""The name of the audit log in its checkpoints."""


@dataclass(frozen=True, slots=True)
class _Keys:
    verifier: EllipticCurvePrivateKey
    audit: EllipticCurvePrivateKey
    challenge: bytes
    secrets: bytes


class AttestService:
    """One attestation service.

    `routers` go into the application of the management listener, `run()` is its background work, `close()` comes last.
    `rounds` are the rounds themselves, for who asks without HTTP (simulations, benchmarks).
    `verifier_public_key` signs results and standing statements, `audit_public_key` the checkpoints of the audit log.
    """

    def __init__(
        self,
        settings: AttestSettings,
        store: Store,
        keys: _Keys,
        *,
        watch: SilenceWatch,
        feed: StandingFeed,
        tending: Tending,
    ) -> None:
        self.settings: Final = settings
        self.issuer: Final = settings.issuer
        self.verifier_public_key: Final[EllipticCurvePublicKey] = keys.verifier.public_key()
        self.audit_public_key: Final[EllipticCurvePublicKey] = keys.audit.public_key()
        self.routers: list[APIRouter] = []
        self.rounds: RoundService
        self._store = store
        self._watch = watch
        self._feed = feed
        self._tending = tending

    @classmethod
    async def open(
        cls, settings: AttestSettings, *, tokens: TokenVerifier, clock: Clock, policies: PolicySet | None = None
    ) -> "AttestService":
        """Open the database, read or make the keys, and put the service together.

        `tokens` verifies access tokens for the audience `settings.issuer`; `policies` is the appraisal policy set, the
        default one if None; those that `settings` names, which are signed, come before. Raises `StoreUrlInvalid`,
        `TrustFileInvalid`, `KeyFileExposed`, `PolicyInvalid`, `PolicyBundleRefused`.
        """
        endorsements, signers = _endorsements(settings), load_signers(settings.reference_signers)
        keys = _Keys(
            verifier=load_or_create_key(settings.state / "verifier.key"),
            audit=load_or_create_key(settings.state / "audit.key"),
            challenge=load_or_create_secret(settings.state / "challenge.secret", MAC_SIZE),
            secrets=load_or_create_secret(settings.state / "secrets.key", KEY_SIZE),
        )
        store = await Store.open(settings.database, migrations=MIGRATIONS)
        events = Events()
        audit = AuditLog(AuditRow, keys.audit, AUDIT_ORIGIN)
        ledger, refusals = StandingLedger(audit, events), Refusals(store, audit)
        rules, access = _rules(settings), Access(tokens, store)
        filed = FiledReferences(store, signers=signers)
        owners = ImageOwners(filed)
        references = ReferenceService(store, audit, refusals, filed, rules=rules, signers=signers, clock=clock)
        feed = StandingFeed(store, events, keys.verifier, issuer=settings.issuer, clock=clock)
        presence = Presence(audit, round_time=rules.round, silence=rules.silent_rounds * rules.round)
        service = cls(
            settings,
            store,
            keys,
            watch=SilenceWatch(store, ledger, presence, clock=clock),
            feed=feed,
            tending=Tending(store, refusals, history=timedelta(days=settings.history_days), clock=clock),
        )
        async with contextlib.AsyncExitStack() as opened:
            opened.push_async_callback(store.close)
            judged_by = await load_policies(
                store,
                audit,
                settings.signed_policies,
                load_signers(settings.policy_signers),
                unsigned=policies if policies is not None else load_default("appraisal"),
                now=clock(),
            )
            opened.pop_all()
        rounds = RoundService(
            store,
            audit,
            ledger,
            refusals,
            filed,
            rules=rules,
            seal=ChallengeSeal(keys.challenge),
            key=keys.verifier,
            policies=judged_by,
            clock=clock,
        )
        enrolments = EnrolmentService(
            store,
            audit,
            ledger,
            refusals,
            endorsements=endorsements,
            device_roots=load_bundle(settings.device_roots),
            allow_list=settings.ek_allow_list,
            owners=owners,
            unknown_wait=settings.unknown_nodes == "wait",
            activation=timedelta(seconds=settings.activation_seconds),
            clock=clock,
        )
        rotation = RotationService(
            store,
            audit,
            ledger,
            refusals,
            owners=owners,
            seal=RotationSeal(keys.challenge),
            pcrs=rules.pcrs,
            deadline=timedelta(seconds=settings.activation_seconds),
            clock=clock,
        )
        decisions = Decisions(store, audit, ledger, refusals, clock=clock)
        reboots = RebootService(decisions)
        nodes = NodeService(
            store, ledger, decisions, owners=owners, readmit_untrusted=settings.operator_may_readmit_untrusted
        )
        tickets = TicketService(
            store, audit, management_url=settings.management_url, ca_sha256=settings.ca_sha256, clock=clock
        )
        kept = SecretService(store, audit, refusals, rounds, cabinet=Cabinet(keys.secrets), clock=clock)
        service.rounds = rounds
        service.routers = [
            tickets_router(tickets, access),
            enrolments_router(enrolments),
            rounds_router(rounds),
            history_router(History(store), nodes, access),
            rotation_router(rotation),
            nodes_router(nodes, reboots, FloorService(decisions), access),
            reboots_router(reboots, access),
            secrets_router(kept, access),
            standings_router(feed, access, keys.verifier.public_key()),
            references_router(references, access),
            checkpoints_router(audit, store, origin=AUDIT_ORIGIN, key=keys.audit.public_key()),
            _audit_router(audit, store, access),
        ]
        return service

    async def run(self) -> None:
        """Lapse silent nodes and clear what is over until cancelled; then nobody waits for news any longer."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch.run())
                group.create_task(self._tending.run())
        finally:
            self._feed.close()

    async def ready(self) -> None:
        """Return if the database answers; for /readyz."""
        async with self._store.read() as session:
            await session.execute(text("SELECT 1"))

    async def look(self) -> None:
        """Look for silent nodes, now; `run` does it all the time."""
        await self._watch.lapse()

    async def tend(self) -> None:
        """Clear what is over, now; `run` does it every minute."""
        await self._tending.tend()

    async def close(self) -> None:
        """Write down what is still to be told of refusals, and close the database."""
        await self._tending.end()
        await self._store.close()


def _rules(settings: AttestSettings) -> RoundRules:
    return RoundRules(
        issuer=settings.issuer,
        audience=settings.management_url,
        pcrs=tuple(sorted(set(settings.pcrs))),
        round=timedelta(seconds=settings.round_seconds),
        silent_rounds=settings.silent_rounds,
        challenge=timedelta(seconds=settings.challenge_seconds),
        result=timedelta(seconds=settings.result_seconds),
        decisions=DecisionRules(
            None if settings.decision_jwks is None else load_keys(settings.decision_jwks),
            settings.decision_issuer or f"{settings.management_url}/platform/v1",
        ),
    )


def _endorsements(settings: AttestSettings) -> EkPolicy:
    tolerate = settings.malformed_ek_certificates == "tolerate"
    store = load_bundle(settings.ek_roots, tolerate=tolerate)
    return EkPolicy(store, tolerate_malformed=tolerate, software_tpms=settings.software_tpms)


def _audit_router(audit: AuditLog, store: Store, access: Access) -> APIRouter:
    router = APIRouter(prefix="/attest/v1/audit")

    @router.get("", dependencies=[Depends(access.require("attest:admin"))])
    async def export(after: Annotated[int, Query(ge=0, lt=2**53)] = 0) -> dict[str, Any]:
        async with store.read() as session:
            return await audit.export(session, after=after)

    return router
