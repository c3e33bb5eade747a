"""Enrolment in two steps: the verifier seals a secret for a TPM and an AK; who opens it has both.

1. keys      EK by its certificate, its ticket, the allow-list or its device's identity (IAK, IDevID); AK and node key
             by their attributes, the node key also by what the owner of its image wants it bound to
2. identity  one EK, one IAK, one IDevID is one node; a known node gets other keys only by a new ticket, a fallen one
             by one made since
3. secret    MakeCredential for this EK and the Name of this AK; single use, with a deadline
4. residency TPM2_Certify over the SHA-256 of the secret: of the node key by the AK; where there is an IAK, by that of
             the AK below this EK, and of the IDevID
5. result    the node is pending; it is approved if a ticket was good, or an operator had allowed its TPM, and an
             operator approves it otherwise
"""

import hashlib
import hmac
import json
import secrets
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.certificates import TrustStore
from umec_attest.credential import make_credential
from umec_attest.device_identity import DeviceIdentity, ShownKey, check_device_identity
from umec_attest.ek_certificate import EkPolicy
from umec_attest.enrolment import EndorsedKey, check_ak, check_ek, check_node_key, ek_sha256, verify_certify
from umec_attest.node_binding import is_bound
from umec_attest.service.enrolments.device import verify_device_proofs
from umec_attest.service.enrolments.identity import Identity, check_identity
from umec_attest.service.enrolments.schemas import ActivationRequest, DeviceKey, EnrolmentRequest
from umec_attest.service.errors import (
    ActivationExpired,
    ActivationSecretMismatch,
    ActivationUsed,
    EnrolmentsBusy,
    EnrolmentUnknown,
    NodeOtherEk,
    TicketExpired,
    TicketRequired,
)
from umec_attest.service.references.owners import ImageOwners
from umec_attest.service.refusals import Refusals
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import EnrolmentRow, NodeRow, TicketRow
from umec_attest.service.tickets.service import allowed_key, check_ticket, find_allowed, find_ticket
from umec_attest.service.wire import encode, instant
from umec_attest.tpm.public import Public, parse_public
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["MAX_OPEN", "MAX_OPEN_PER_ADDRESS", "EnrolmentService"]

SECRET_SIZE: Final = 32
"""Bytes: the longest secret that every EK template takes (the digest of its Name)."""

OWN_NAME: Final = "tpm-"
OWN_DIGITS: Final = 16
"""How a node is called that nobody gave a name: its TPM's `ek_sha256`, as far as a person compares it."""

MAX_OPEN_PER_ADDRESS: Final = 64
"""Enrolments without a ticket that are under way at once from one address: a room full of nodes behind one router."""
MAX_OPEN: Final = 10_000
"""The same from all addresses: some 20 MB, which is what strangers can make us keep."""


class EnrolmentService:
    """Enrols nodes."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        ledger: StandingLedger,
        refusals: Refusals,
        *,
        endorsements: EkPolicy,
        device_roots: TrustStore,
        allow_list: frozenset[str],
        owners: ImageOwners,
        unknown_wait: bool,
        activation: timedelta,
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._ledger = ledger
        self._refusals = refusals
        self._endorsements = endorsements
        self._device_roots = device_roots
        self._allow_list = allow_list
        self._owners = owners
        self._unknown_wait = unknown_wait
        self._activation = activation
        self._clock = clock

    async def begin(self, request: EnrolmentRequest, *, address: str) -> dict[str, Any]:
        """Answer an enrolment with a credential that only its TPM opens.

        A TPM has one enrolment under way: a newer one replaces it. An EK and its certificate are no secrets, so one
        that a ticket began is replaced by another ticket only.
        """
        now = self._clock()
        try:
            return await self._begin(request, address, now)
        except UmecError as error:
            await self._refusals.stranger("enrolment.begin", request.node or "-", error, now, address=address)
            raise

    async def _begin(self, request: EnrolmentRequest, address: str, now: datetime) -> dict[str, Any]:
        ek, ak = parse_public(request.ek_public), check_ak(parse_public(request.ak_public))
        node_key = check_node_key(parse_public(request.node_key_public))
        secret = secrets.token_bytes(SECRET_SIZE)
        identifier = secrets.token_hex(16)
        expires_at = now + self._activation
        fingerprint = ek_sha256(ek)

        async with self._store.read() as session:  # judged before the transaction, where all others would wait
            shown = await _ticket(session, request, fingerprint, now)
        if shown is not None:  # else the operator who names the image has it checked
            await self._owners.check(shown.image, node_key)
        elif not self._unknown_wait:  # before any certificate is looked at: a stranger's may be long, and many
            raise TicketRequired(
                "this site takes no node without a ticket, unless an operator has allowed its TPM",
                advice=f"umec node allow NAME --ek-sha256 {fingerprint}",
            )
        device = self._device(request, now)
        claimed = Identity(
            fingerprint, *((None, None) if device is None else (device.iak_sha256, device.idevid_sha256))
        )
        endorsed = self._endorse(ek, request, shown, device, now)  # 1

        async def work(session: AsyncSession) -> None:
            ticket = await _ticket(session, request, fingerprint, now)
            if shown is not None and (ticket is None or ticket.image != shown.image):
                raise TicketExpired("what an operator said of this TPM changed meanwhile", advice="enrol again")
            node = _name(request, ticket, fingerprint)
            await check_identity(session, node, claimed, ticket)  # 2
            await _replace(session, fingerprint, shown=request.ticket is not None)
            if ticket is None:
                await _check_room(session, address, now)
            row = _enrolment_row(identifier, node, endorsed, device, ticket, expires_at)
            row.address = address
            row.secret_sha256 = hashlib.sha256(secret).digest()
            row.ak_public, row.node_key_public = ak.to_bytes(), node_key.to_bytes()
            session.add(row)

        await self._store.write(work)
        credential = make_credential(ek, ak.name(), secret)  # 3
        return {
            "enrolment": identifier,
            "credential_blob": encode(credential.blob),
            "encrypted_secret": encode(credential.encrypted_secret),
            "expires_at": instant(expires_at),
        }

    async def activate(self, identifier: str, request: ActivationRequest, *, address: str) -> dict[str, Any]:
        """End an enrolment: the node becomes known, pending until its first good evidence."""
        now = self._clock()
        subject, approved = identifier, False
        try:
            subject = await self._take(identifier, request.secret, now)
            await self._certify(identifier, request)  # 4
            approved = await self._store.write(lambda session: self._finish(session, identifier, now))
        except UmecError as error:
            await self._refusals.stranger("enrolment.activate", subject, error, now, address=address)
            raise
        self._ledger.announce()
        return {"node": subject, "standing": Standing.PENDING.value, "approved": approved}

    async def _take(self, identifier: str, secret: bytes, now: datetime) -> str:
        """Use up the one attempt of an enrolment and return its node. The attempt stays used whatever follows."""
        given = hashlib.sha256(secret).digest()

        async def work(session: AsyncSession) -> tuple[str, bool]:
            row = await session.get(EnrolmentRow, identifier, with_for_update=True)
            if row is None:
                raise EnrolmentUnknown("there is no such enrolment")
            if row.used_at is not None:
                raise ActivationUsed("the one attempt to activate was made", advice="enrol again")
            if now >= row.expires_at:
                raise ActivationExpired(f"the deadline was {instant(row.expires_at)}", advice="enrol again")
            row.used_at = now
            return row.node, hmac.compare_digest(given, row.secret_sha256)

        node, matches = await self._store.write(work)
        if not matches:
            raise ActivationSecretMismatch("the secret is not the one that was sealed", advice="enrol again")
        return node

    async def _certify(self, identifier: str, request: ActivationRequest) -> None:
        async with self._store.read() as session:
            row = await session.get_one(EnrolmentRow, identifier)
        verify_certify(
            attest=request.certify_attest,
            signature=request.certify_signature,
            ak=parse_public(row.ak_public),
            ak_parent=parse_public(row.ek_public),
            node_key=parse_public(row.node_key_public),
            qualifying=row.secret_sha256,
        )
        verify_device_proofs(row, request)

    async def _finish(self, session: AsyncSession, identifier: str, now: datetime) -> bool:
        row = await session.get_one(EnrolmentRow, identifier)
        ticket = None
        if row.ticket is not None:
            ticket = await session.get_one(TicketRow, row.ticket, with_for_update=True)
            check_ticket(ticket, node=row.node, ek_sha256=row.ek_sha256, now=now)
            # once more: since the enrolment began, the TPM may be allowed for another image, or its image have an owner
            await self._owners.check(ticket.image, parse_public(row.node_key_public), session)
            ticket.used_at = now
        known = await check_identity(session, row.node, Identity.of(row), ticket)
        node = _new_node(row, now) if known is None else known
        if known is not None:
            known.rounds += 1  # a challenge from before has no answer any more, also where the AK is the same
        _baseline(node, row, ticket, now)
        await self._enrolled(session, node, row, new=known is None, now=now)  # 5
        return node.approved

    async def _enrolled(
        self, session: AsyncSession, node: NodeRow, row: EnrolmentRow, *, new: bool, now: datetime
    ) -> None:
        reason = _how(row) if node.approved else "enrolled, waits for an operator"
        if new:
            session.add(node)
            await session.flush()
            node.reason = reason
            await self._ledger.record(session, node)
        else:
            node.standing = ""  # whatever it was: other keys are another generation
            await self._ledger.change(session, node, Standing.PENDING, actor="verifier", reason=reason, now=now)
        await self._audit.append(
            session,
            actor=node.id,
            action="node.enrol",
            subject=node.id,
            outcome="done",
            facts={
                "ek_sha256": node.ek_sha256,
                "ak_name": parse_public(node.ak_public).name().hex(),
                "node_key_name": parse_public(node.node_key_public).name().hex(),
                "node_key_bound": is_bound(parse_public(node.node_key_public)),
                "endorsed_by": row.endorsed_by,
                "iak_sha256": node.iak_sha256,
                "idevid_sha256": node.idevid_sha256,
                **json.loads(row.shown),
                "approved": node.approved,
                "generation": node.generation,
            },
            now=now,
        )

    def _device(self, request: EnrolmentRequest, now: datetime) -> DeviceIdentity | None:
        if request.iak is None:
            return None
        idevid = None if request.idevid is None else _shown(request.idevid)
        return check_device_identity(_shown(request.iak), idevid, store=self._device_roots, now=now)

    def _endorse(
        self,
        ek: Public,
        request: EnrolmentRequest,
        ticket: TicketRow | None,
        device: DeviceIdentity | None,
        now: datetime,
    ) -> EndorsedKey:
        """Check the EK. A ticket names the TPM, so it vouches for one that has no certificate."""
        named = frozenset() if ticket is None else frozenset({ticket.ek_sha256})
        return check_ek(
            public=ek,
            certificate=request.ek_certificate,
            chain=request.ek_chain,
            policy=self._endorsements,
            now=now,
            allow_list=self._allow_list | named,
            device=device,
        )


async def _ticket(
    session: AsyncSession, request: EnrolmentRequest, fingerprint: str, now: datetime
) -> TicketRow | None:
    """Return the ticket that was shown, or what an operator said of this TPM; raises a `TicketRefused`."""
    if request.ticket is None:
        ticket = await find_allowed(session, fingerprint, now)
    else:
        ticket = await find_ticket(session, request.ticket)
    if ticket is not None:
        check_ticket(ticket, node=request.node or ticket.node, ek_sha256=fingerprint, now=now)
    return ticket


def _name(request: EnrolmentRequest, ticket: TicketRow | None, fingerprint: str) -> str:
    """Return the name of the node: that of the ticket, the one that is asked for, or one of its TPM's own."""
    if ticket is not None:
        return ticket.node
    own = f"{OWN_NAME}{fingerprint[:OWN_DIGITS]}"
    asked = request.node or own
    if asked.startswith(OWN_NAME) and asked != own:  # else a stranger could occupy the name that a TPM will have
        raise NodeOtherEk(f"{asked} is the name of another TPM")
    return asked


async def _replace(session: AsyncSession, ek_sha256: str, *, shown: bool) -> None:
    """End what this TPM has under way; who shows no ticket ends only what was begun without one."""
    work = delete(EnrolmentRow).where(EnrolmentRow.ek_sha256 == ek_sha256, EnrolmentRow.used_at.is_(None))
    without = or_(EnrolmentRow.ticket.is_(None), EnrolmentRow.ticket == allowed_key(ek_sha256))
    await session.execute(work if shown else work.where(without))


async def _check_room(session: AsyncSession, address: str, now: datetime) -> None:
    """Bound what is under way without a ticket: by address, so that nobody keeps all others out, and as a whole."""
    query = select(func.count()).where(
        EnrolmentRow.used_at.is_(None), EnrolmentRow.expires_at > now, EnrolmentRow.ticket.is_(None)
    )
    if (await session.scalar(query.where(EnrolmentRow.address == address)) or 0) >= MAX_OPEN_PER_ADDRESS:
        raise EnrolmentsBusy("too many enrolments of this address are under way", advice="try again in some minutes")
    if (await session.scalar(query) or 0) >= MAX_OPEN:
        raise EnrolmentsBusy("too many enrolments are under way", advice="try again in some minutes, or with a ticket")


def _how(row: EnrolmentRow) -> str:
    allowed = row.ticket == allowed_key(row.ek_sha256)
    return "enrolled as a TPM that an operator allowed" if allowed else "enrolled with a ticket"


def _shown(key: DeviceKey) -> ShownKey:
    return ShownKey(parse_public(key.public), key.certificate, key.chain)


def _enrolment_row(
    identifier: str,
    node: str,
    endorsed: EndorsedKey,
    device: DeviceIdentity | None,
    ticket: TicketRow | None,
    expires_at: datetime,
) -> EnrolmentRow:
    model = endorsed.model
    shown = {
        "tpm": None if model is None else f"{model.maker} {model.model} {model.version}",
        "device": None if device is None else device.serial,
    }
    return EnrolmentRow(
        id=identifier,
        node=node,
        ticket=None if ticket is None else ticket.secret_sha256,
        ek_sha256=endorsed.sha256,
        ek_public=endorsed.public.to_bytes(),
        endorsed_by=endorsed.endorsed_by,
        iak_public=None if device is None else device.iak.to_bytes(),
        idevid_public=None if device is None or device.idevid is None else device.idevid.to_bytes(),
        shown=json.dumps(shown),
        expires_at=expires_at,
        used_at=None,
    )


def _new_node(row: EnrolmentRow, now: datetime) -> NodeRow:
    return NodeRow(
        id=row.node,
        tenant=None,
        image=None,
        approved=False,
        ek_sha256=row.ek_sha256,
        standing=Standing.PENDING.value,
        generation=1,
        rounds=0,
        reason="",
        changed_at=now,
    )


def _baseline(node: NodeRow, row: EnrolmentRow, ticket: TicketRow | None, now: datetime) -> None:
    """Set keys, and forget what the former keys said: a new AK is a new base line.

    At which boot the TPM's machine was found untrusted, or booted unannounced, and below which version of its image it
    does not go is not forgotten: other keys do not mend what runs there.
    """
    if node.ek_sha256 != row.ek_sha256:
        node.ek_sha256, node.fell_at_reset, node.reset_watch, node.version_floor = row.ek_sha256, None, None, None
    claimed = Identity.of(row)
    node.iak_sha256, node.idevid_sha256 = claimed.iak_sha256, claimed.idevid_sha256
    node.ek_public, node.ak_public, node.node_key_public = row.ek_public, row.ak_public, row.node_key_public
    node.enrolled_at, node.deadline = now, None
    node.clock_state = node.boot_log_reset = node.boot_log_sha256 = node.last_round = None
    node.runtime_checkpoint = node.start_checkpoint = None
    node.result = node.result_basis = node.result_expires_at = None
    if ticket is not None:
        node.tenant, node.image, node.approved = ticket.tenant, ticket.image, True
        node.node_class = ticket.node_class
