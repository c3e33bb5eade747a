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
)
from umec_attest.service.tables import TicketRow
from umec_attest.service.tickets.schemas import TicketRequest
from umec_attest.service.wire import instant
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.store import Store

__all__ = ["TicketService", "check_ticket", "find_ticket", "ticket_digest"]


def ticket_digest(ticket: str) -> bytes:
    """Return what is kept of a ticket: the SHA-256 of its text, whose secret has 256 bits."""
    return hashlib.sha256(ticket.encode()).digest()


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
        expires_at = now + timedelta(seconds=request.lifetime_seconds)
        ticket = self._text(request.asset)
        row = TicketRow(
            secret_sha256=ticket_digest(ticket),
            node=request.asset,
            tenant=request.tenant,
            image=request.image,
            node_class=request.node_class.value,
            ek_sha256=request.ek_sha256,
            created_at=now,
            expires_at=expires_at,
            used_at=None,
        )

        async def work(session: AsyncSession) -> None:
            session.add(row)
            await self._audit.append(
                session,
                actor=actor,
                action="ticket.create",
                subject=request.asset,
                outcome="done",
                facts={
                    "tenant": request.tenant,
                    "image": request.image,
                    "class": request.node_class.value,
                    "ek_sha256": request.ek_sha256,
                },
                now=now,
            )

        await self._store.write(work)
        return {"ticket": ticket, "node": request.asset, "expires_at": instant(expires_at)}

    def _text(self, asset: str) -> str:
        content = {
            "asset": asset,
            "ca_sha256": self._ca_sha256,
            "url": self._management_url,
            "secret": secrets.token_urlsafe(32),
        }
        return base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).rstrip(b"=").decode()
