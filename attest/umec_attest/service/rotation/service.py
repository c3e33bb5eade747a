"""Rotation in two steps: the verifier seals a secret for the node's TPM and the new AK; the TPM speaks for new keys.

1. keys      what an enrolment would take, and none that the node has (`umec_attest.rotation`); the node key is bound
             as the owner of its image wants it
2. standing  trusted or degraded: a node that fell, or is silent, has to come back with the keys that it has
3. secret    MakeCredential for the EK of the enrolment and the Name of the new AK, with a deadline
4. proof     the secret; the present AK certifies the new one, that one the node key; its quote is the new base line
5. effect    in one transaction, if the generation is still the same: keys, base line, next generation, audit; the
             standing stays

With the generation all tokens and results end that were bound to the former keys.
"""

import dataclasses
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.clock import ClockState
from umec_attest.credential import make_credential
from umec_attest.digests import parse_pcr_values
from umec_attest.node_binding import is_bound
from umec_attest.rotation import NewKeys, RotatedKeys, Statement, check_new_keys, next_base_line, verify_rotation
from umec_attest.service.errors import NodeUnknown
from umec_attest.service.references.owners import ImageOwners
from umec_attest.service.refusals import Refusals
from umec_attest.service.rotation.errors import (
    RotationDone,
    RotationNotStanding,
    RotationSecretMismatch,
    RotationSuperseded,
    RotationUnknown,
)
from umec_attest.service.rotation.schemas import RotationProof, RotationRequest, Said
from umec_attest.service.rotation.seal import Permit, RotationSeal
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import NodeRow
from umec_attest.service.wire import encode, instant
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import parse_public
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["RotationService"]

SALT_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class _Proven:
    permit: Permit
    keys: RotatedKeys


class RotationService:
    """Gives nodes other keys."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        ledger: StandingLedger,
        refusals: Refusals,
        *,
        owners: ImageOwners,
        seal: RotationSeal,
        pcrs: Sequence[int],
        deadline: timedelta,
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._ledger = ledger
        self._refusals = refusals
        self._owners = owners
        self._seal = seal
        self._pcrs = sorted(pcrs)
        self._selection = PcrSelection.from_mapping({"sha256": self._pcrs})
        self._deadline = deadline
        self._clock = clock

    async def begin(self, request: RotationRequest, *, address: str) -> dict[str, Any]:
        """Answer with a credential that only the node's TPM opens; nothing is kept of it."""
        now = self._clock()
        try:
            async with self._store.read() as session:
                node = await _known(session, request.node)
            return self._permit(node, await self._new_keys(node, request), now)
        except UmecError as error:
            await self._refusals.stranger("rotation.begin", request.node, error, now, address=address)
            raise

    def _permit(self, node: NodeRow, keys: NewKeys, now: datetime) -> dict[str, Any]:
        permit = Permit(
            node=node.id,
            generation=node.generation,
            ak=keys.ak.name().hex(),
            node_key=keys.node_key.name().hex(),
            expires_at=now + self._deadline,
            salt=secrets.token_hex(SALT_SIZE),
        )
        token, secret = self._seal.seal(permit)
        credential = make_credential(parse_public(node.ek_public), keys.ak.name(), secret)  # 3
        return {
            "permit": token,
            "credential_blob": encode(credential.blob),
            "encrypted_secret": encode(credential.encrypted_secret),
            "pcrs": {"sha256": self._pcrs},
            "expires_at": instant(permit.expires_at),
        }

    async def prove(self, request: RotationProof, *, address: str) -> dict[str, Any]:
        """End a rotation: the node has the new keys, in its next generation."""
        now = self._clock()
        try:
            proven = await self._prove(request, now)
            generation, standing = await self._store.write(lambda session: self._apply(session, proven, now))
        except UmecError as error:
            await self._refusals.stranger("rotation.prove", request.node, error, now, address=address)
            raise
        self._ledger.announce()
        return {"node": request.node, "standing": standing, "generation": generation}

    async def _prove(self, request: RotationProof, now: datetime) -> _Proven:
        permit, secret = self._seal.open(request.permit, node=request.node, now=now)
        async with self._store.read() as session:
            node = await _known(session, request.node)
        keys = await self._new_keys(node, request)
        if (permit.ak, permit.node_key) != (keys.ak.name().hex(), keys.node_key.name().hex()):
            raise RotationUnknown("the permit was made for other keys")
        if not hmac.compare_digest(request.secret, secret):  # 4
            raise RotationSecretMismatch("the secret is not the one that was sealed")
        rotated = verify_rotation(
            keys=keys,
            present_ak=parse_public(node.ak_public),
            ek=parse_public(node.ek_public),
            qualifying=hashlib.sha256(secret).digest(),
            ak_certified=_statement(request.ak_certified),
            node_key_certified=_statement(request.node_key_certified),
            quoted=_statement(request.quoted),
            selection=self._selection,
            pcrs=parse_pcr_values(request.pcrs),
        )
        return _Proven(permit, rotated)

    async def _new_keys(self, node: NodeRow, request: RotationRequest) -> NewKeys:
        """Check the keys that are asked for (1), and that the node may have others (2)."""
        keys = _new_keys(node, request)
        if node.image is not None:
            await self._owners.check(node.image, keys.node_key)
        return keys

    async def _apply(self, session: AsyncSession, proven: _Proven, now: datetime) -> tuple[int, str]:
        """Give a proof its effect (5). Of two at once, the transaction lets exactly one through."""
        permit, keys = proven.permit, proven.keys
        node = await session.get_one(NodeRow, permit.node, with_for_update=True)  # no node is ever deleted
        if node.generation != permit.generation:  # other keys are another generation, too
            raise RotationSuperseded("the node is in another generation now", advice="ask for a new permit")
        if node.image is not None:  # 1, once more: a newer set may name an owner
            await self._owners.check(node.image, keys.node_key, session)
        previous = None if node.clock_state is None else ClockState(**json.loads(node.clock_state))
        base_line = next_base_line(keys.quote, previous)
        former = (_name(node.ak_public), _name(node.node_key_public))
        node.ak_public, node.node_key_public = keys.ak.to_bytes(), keys.node_key.to_bytes()
        node.clock_state = json.dumps(dataclasses.asdict(base_line))
        node.rounds += 1  # a challenge for the former AK has no answer any more
        node.result = node.result_basis = node.result_expires_at = None
        await self._ledger.advance(session, node, now=now)
        await self._audit.append(
            session,
            actor=node.id,
            action="node.rotate",
            subject=node.id,
            outcome="done",
            facts={
                "generation": node.generation,
                "former_ak_name": former[0],
                "former_node_key_name": former[1],
                "ak_name": permit.ak,
                "node_key_name": permit.node_key,
                "node_key_bound": is_bound(keys.node_key),
            },
            now=now,
        )
        return node.generation, node.standing


async def _known(session: AsyncSession, node_id: str) -> NodeRow:
    node = await session.get(NodeRow, node_id)
    if node is None:
        raise NodeUnknown(f"there is no node {node_id}")
    return node


def _new_keys(node: NodeRow, request: RotationRequest) -> NewKeys:
    ak, node_key = parse_public(request.ak_public), parse_public(request.node_key_public)
    if (ak.to_bytes(), node_key.to_bytes()) == (node.ak_public, node.node_key_public):
        raise RotationDone(f"node {node.id} has these keys, in generation {node.generation}")
    _check_standing(node)
    present = (parse_public(node.ak_public), parse_public(node.node_key_public))
    return check_new_keys(ak=ak, node_key=node_key, present=present)


def _check_standing(node: NodeRow) -> None:
    if not Standing(node.standing).stands:
        raise RotationNotStanding(f"node {node.id} is {node.standing}", advice="attest with the present keys first")


def _name(public: bytes) -> str:
    return parse_public(public).name().hex()


def _statement(said: Said) -> Statement:
    return Statement(said.attest, said.signature)
