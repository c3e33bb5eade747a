"""Makes tickets, and says whether a shown one is good."""

import base64
import hashlib
import json
import secrets
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.errors import (
    TicketEkMismatch,
    TicketExpired,
    TicketNodeMismatch,
    TicketUnknown,
    TicketUsed,
    TpmNotAllowed,
)
from umec_attest.service.tables import TicketRow
from umec_attest.service.tickets.schemas import AllowRequest, TicketRequest
from umec_attest.service.wire import instant
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.store import Store

__all__ = ["TicketService", "allowed_key", "check_ticket", "find_allowed", "find_ticket", "ticket_digest"]


def ticket_digest(ticket: str) -> bytes:
    """Return what is kept of a ticket: the SHA-256 of its text, whose secret has 256 bits."""
    return hashlib.sha256(ticket.encode()).digest()


def allowed_key(ek_sha256: str) -> bytes:
    """Return what is in the place of a digest where there is no text: longer than one, so that no text has it."""
    return b"ek-sha256:" + bytes.fromhex(ek_sha256)


async def find_allowed(session: AsyncSession, ek_sha256: str, now: datetime) -> TicketRow | None:
    """Return the row of a TPM that an operator allowed, if it was not used and is in time."""
    row = await session.get(TicketRow, allowed_key(ek_sha256), with_for_update=True)
    return None if row is None or row.used_at is not None or now >= row.expires_at else row


async def find_ticket(session: AsyncSession, ticket: str) -> TicketRow:
    """Return the row of a ticket; raises `TicketUnknown`."""
    row = await session.get(TicketRow, ticket_digest(ticket), with_for_update=True)
    if row is None:
        raise TicketUnknown("nobody here made this ticket")
    return row


def check_ticket(row: TicketRow, *, node: str, ek_sha256: str, now: datetime) -> None:
    """Check that a ticket is unused, in time, and for this node and TPM; raises a `TicketRefused`."""
    if row.used_at is not None:
        raise TicketUsed("the ticket was used already", advice="make a new one")
    if now >= row.expires_at:
        raise TicketExpired(f"the ticket expired at {instant(row.expires_at)}", advice="make a new one")
    if row.node != node:
        raise TicketNodeMismatch(f"the ticket is for {row.node}, not for {node}")
    if row.ek_sha256 != ek_sha256:
        raise TicketEkMismatch("the ticket is for another TPM", advice=f"this one has the EK {ek_sha256}")


class TicketService:
    """Makes tickets."""

    def __init__(self, store: Store, audit: AuditLog, *, management_url: str, ca_sha256: str, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._management_url = management_url
        self._ca_sha256 = ca_sha256
        self._clock = clock

    async def create(self, request: TicketRequest, *, actor: str) -> dict[str, Any]:
        """Make a ticket; its text is returned once and not kept."""
        now = self._clock()
        ticket = self._text(request.asset)
        row = _row(ticket_digest(ticket), request.ek_sha256, request, now)

        async def work(session: AsyncSession) -> None:
            session.add(row)
            await self._write_down(session, "ticket.create", row, actor, now)

        await self._store.write(work)
        return {"ticket": ticket, "node": request.asset, "expires_at": instant(row.expires_at)}

    async def allow(self, ek_sha256: str, request: AllowRequest, *, actor: str) -> dict[str, Any]:
        """Let a TPM enrol as that asset without a ticket, once; what was said of it before counts no more."""
        now = self._clock()
        row = _row(allowed_key(ek_sha256), ek_sha256, request, now)

        async def work(session: AsyncSession) -> None:
            await session.merge(row)
            await self._write_down(session, "tpm.allow", row, actor, now)

        await self._store.write(work)
        return {"node": request.asset, "ek_sha256": ek_sha256, "expires_at": instant(row.expires_at)}

    async def disallow(self, ek_sha256: str, *, actor: str) -> dict[str, Any]:
        """Take that word back, if it was not used. Raises `TpmNotAllowed` where there is none."""
        now = self._clock()

        async def work(session: AsyncSession) -> str:
            row = await find_allowed(session, ek_sha256, now)
            if row is None:
                raise TpmNotAllowed("no TPM with this endorsement key is allowed to enrol")
            row.expires_at = now
            await self._write_down(session, "tpm.disallow", row, actor, now)
            return row.node

        return {"node": await self._store.write(work), "ek_sha256": ek_sha256}

    async def _write_down(self, session: AsyncSession, action: str, row: TicketRow, actor: str, now: datetime) -> None:
        await self._audit.append(
            session,
            actor=actor,
            action=action,
            subject=row.node,
            outcome="done",
            facts={"tenant": row.tenant, "image": row.image, "class": row.node_class, "ek_sha256": row.ek_sha256},
            now=now,
        )

    def _text(self, asset: str) -> str:
        content = {
            "asset": asset,
            "ca_sha256": self._ca_sha256,
            "url": self._management_url,
            "secret": secrets.token_urlsafe(32),
        }
        return base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _row(key: bytes, ek_sha256: str, request: TicketRequest | AllowRequest, now: datetime) -> TicketRow:
    return TicketRow(
        secret_sha256=key,
        node=request.asset,
        tenant=request.tenant,
        image=request.image,
        node_class=request.node_class.value,
        ek_sha256=ek_sha256,
        created_at=now,
        expires_at=now + timedelta(seconds=request.lifetime_seconds),
        used_at=None,
    )
