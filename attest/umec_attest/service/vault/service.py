"""Stores secrets for nodes, and releases them.

The order in which a release is decided:
    1. round       the evidence that comes along is judged as any round is, with all that follows from it: fresh,
                   answered once, of this node's TPM; what fails there is refused with its code
    2. node        in the transaction of the release: as that round left it, in the same generation
    3. standing    trusted; degraded only where whoever stored the secret said so
    4. secret      there is one of this name for this node, stored for the TPM that it has now
    5. release     sealed to the TPM, the PCRs and the boot of the quote (`umec_attest.sealed.release`), and audited

A node that does not stand well does not learn which secrets there are: 3 comes before 4.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.digests import parse_pcr_values
from umec_attest.sealed import SealedSecret, check_secret, seal_for_boot
from umec_attest.service.errors import (
    NodeRevoked,
    NodeUnknown,
    SecretOtherTpm,
    SecretsFull,
    SecretStanding,
    SecretSuperseded,
    SecretUnknown,
)
from umec_attest.service.evidence.service import RoundService
from umec_attest.service.refusals import Refusals
from umec_attest.service.tables import NodeRow, SecretRow
from umec_attest.service.vault.cabinet import Cabinet
from umec_attest.service.vault.schemas import ReleaseRequest, SecretRequest
from umec_attest.service.wire import encode, instant
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import parse_attest
from umec_attest.tpm.public import parse_public
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["MAX_SECRETS", "SecretService"]

MAX_SECRETS: Final = 32
"""Secrets of one node: a disk has one, and a service that is sealed to its node has one."""

_Work = Callable[[AsyncSession], Awaitable[dict[str, Any]]]


class SecretService:
    """Keeps the secrets of nodes. `tenant` None sees all nodes, another only its own."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        refusals: Refusals,
        rounds: RoundService,
        *,
        cabinet: Cabinet,
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._refusals = refusals
        self._rounds = rounds
        self._cabinet = cabinet
        self._clock = clock

    async def list(self, node_id: str, tenant: str | None) -> list[dict[str, Any]]:
        """Return which secrets a node has, and when they were released; raises `NodeUnknown`."""
        async with self._store.read() as session:
            node = await session.get(NodeRow, node_id)
            if node is None or (tenant is not None and node.tenant != tenant):
                raise NodeUnknown(f"there is no node {node_id}")
            rows = await session.scalars(select(SecretRow).where(SecretRow.node == node_id).order_by(SecretRow.name))
            return [_view(row) for row in rows]

    async def store(self, node_id: str, name: str, request: SecretRequest, *, actor: str) -> dict[str, Any]:
        """Store a secret for the TPM that a node has now, in the place of one of the same name."""
        now = self._clock()

        async def work(session: AsyncSession) -> dict[str, Any]:
            secret = check_secret(request.secret)
            node = await session.get(NodeRow, node_id, with_for_update=True)
            if node is None:
                raise NodeUnknown(f"there is no node {node_id}")
            if node.standing == Standing.REVOKED.value:
                raise NodeRevoked(f"node {node_id} is revoked")
            row = await session.get(SecretRow, (node_id, name), with_for_update=True)
            if row is None:
                await _check_room(session, node_id)
                row = SecretRow(node=node_id, name=name, version=0, releases=0, released_at=None)
                session.add(row)
            row.version += 1
            row.ek_sha256, row.degraded, row.set_by, row.set_at = node.ek_sha256, request.degraded, actor, now
            row.kept = self._cabinet.lock(
                secret, node=node_id, name=name, version=row.version, ek_sha256=node.ek_sha256
            )
            await self._written(session, "secret.store", row, now, actor=actor)
            return _view(row)

        return await self._decided("secret.store", node_id, actor, work, now)

    async def remove(self, node_id: str, name: str, *, actor: str) -> dict[str, Any]:
        """Forget a secret; what was released of it is not called back."""
        now = self._clock()

        async def work(session: AsyncSession) -> dict[str, Any]:
            row = await _secret(session, node_id, name)
            await session.delete(row)
            await self._written(session, "secret.remove", row, now, actor=actor)
            return _view(row)

        return await self._decided("secret.remove", node_id, actor, work, now)

    async def release(self, request: ReleaseRequest, *, address: str) -> dict[str, Any]:
        """Judge the evidence and return the secret, sealed for this TPM, this boot and a minute."""
        evidence = request.evidence
        judged = await self._rounds.submit(evidence, address=address)  # 1
        now = self._clock()

        async def work(session: AsyncSession) -> dict[str, Any]:
            node = await session.get_one(NodeRow, evidence.node, with_for_update=True)
            if node.generation != judged["generation"]:  # 2
                raise SecretSuperseded("the node's standing changed meanwhile", advice="ask again")
            standing = Standing(node.standing)
            if not standing.stands:  # 3
                raise SecretStanding(f"node {node.id} is {node.standing}: it gets no secrets")
            row = await _secret(session, node.id, request.name)  # 4
            if standing is not Standing.TRUSTED and not row.degraded:
                raise SecretStanding(f"node {node.id} is {node.standing}, and the secret is for a trusted one")
            if row.ek_sha256 != node.ek_sha256:
                raise SecretOtherTpm(
                    "the secret was stored for the TPM that the node had before", advice="set it again"
                )
            sealed = self._sealed(node, row, request)  # 5
            row.releases, row.released_at = row.releases + 1, now
            quoted = hashlib.sha256(evidence.quote).hexdigest()
            await self._written(
                session,
                "secret.release",
                row,
                now,
                actor=node.id,
                generation=node.generation,
                reset_count=sealed.reset_count,
                quote_sha256=quoted,
            )
            return {**_released(sealed), "node": node.id, "name": row.name, "version": row.version}

        try:
            answer = await self._store.write(work)
        except UmecError as error:
            await self._refusals.stranger("secret.release", evidence.node, error, now, address=address)
            raise
        return {**answer, "standing": judged["standing"], "generation": judged["generation"]}

    def _sealed(self, node: NodeRow, row: SecretRow, request: ReleaseRequest) -> SealedSecret:
        """Seal what is kept. The round has verified the quote, and that the values that came along are those in it."""
        secret = self._cabinet.unlock(
            row.kept, node=node.id, name=row.name, version=row.version, ek_sha256=row.ek_sha256
        )
        return seal_for_boot(
            parse_public(node.ek_public),
            secret,
            pcrs=parse_pcr_values(request.evidence.pcrs).get(HashAlgorithm.SHA256, {}),
            clock=parse_attest(request.evidence.quote).clock_info,
        )

    async def _decided(self, action: str, node_id: str, actor: str, work: _Work, now: datetime) -> dict[str, Any]:
        try:
            return await self._store.write(work)
        except UmecError as error:
            await self._refusals.operator(action, node_id, error, now, actor=actor)
            raise

    async def _written(
        self, session: AsyncSession, action: str, row: SecretRow, now: datetime, *, actor: str, **facts: int | str
    ) -> None:
        """Write down who did what to which secret; never what it says."""
        await self._audit.append(
            session,
            actor=actor,
            action=action,
            subject=row.node,
            outcome="done",
            facts={"name": row.name, "version": row.version, "degraded": row.degraded, **facts},
            now=now,
        )


async def _secret(session: AsyncSession, node_id: str, name: str) -> SecretRow:
    row = await session.get(SecretRow, (node_id, name), with_for_update=True)
    if row is None:
        raise SecretUnknown(f"node {node_id} has no secret {name}")
    return row


async def _check_room(session: AsyncSession, node_id: str) -> None:
    number = await session.scalar(select(func.count()).select_from(SecretRow).where(SecretRow.node == node_id))
    if (number or 0) >= MAX_SECRETS:
        raise SecretsFull(f"node {node_id} has {number} secrets already", advice="remove one that nothing needs")


def _view(row: SecretRow) -> dict[str, Any]:
    return {
        "node": row.node,
        "name": row.name,
        "version": row.version,
        "degraded": row.degraded,
        "set_by": row.set_by,
        "set_at": instant(row.set_at),
        "releases": row.releases,
        "released_at": None if row.released_at is None else instant(row.released_at),
    }


def _released(sealed: SealedSecret) -> dict[str, Any]:
    return {
        "public": encode(sealed.public),
        "duplicate": encode(sealed.duplicate),
        "encrypted_seed": encode(sealed.encrypted_seed),
        "pcrs": {"sha256": list(sealed.pcrs)},
        "reset_count": sealed.reset_count,
        "restart_count": sealed.restart_count,
        "clock_until": sealed.clock_until,
    }
