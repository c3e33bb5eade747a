"""Which node a TPM may be: one EK, one IAK and one IDevID is one node, and nobody takes over what another one is."""

from dataclasses import dataclass
from typing import Final, Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.enrolment import ek_sha256
from umec_attest.service.errors import (
    DeviceEnrolledElsewhere,
    EkEnrolledElsewhere,
    NodeEnrolled,
    NodeOtherDevice,
    NodeOtherEk,
    NodeRevoked,
    TicketOutdated,
)
from umec_attest.service.tables import EnrolmentRow, NodeRow, TicketRow
from umec_attest.tpm.public import parse_public
from umec_core.standing import Standing

__all__ = ["Identity", "check_identity"]

FALLEN: Final = frozenset({Standing.UNTRUSTED.value, Standing.QUARANTINED.value, Standing.REVOKED.value})
"""Standings that a ticket from before them does not lift."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one TPM from all others: SHA-256 (hex) over the SubjectPublicKeyInfo of each of its keys."""

    ek_sha256: str
    iak_sha256: str | None
    idevid_sha256: str | None

    @classmethod
    def of(cls, row: EnrolmentRow) -> Self:
        """Return what an enrolment under way claims."""
        return cls(row.ek_sha256, _sha256(row.iak_public), _sha256(row.idevid_public))


async def check_identity(
    session: AsyncSession, node: str, claimed: Identity, ticket: TicketRow | None
) -> NodeRow | None:
    """Return the node that is enrolled already, if it may be enrolled anew; None if there is none.

    Raises `EkEnrolledElsewhere`, `DeviceEnrolledElsewhere`, `NodeOtherEk`, `NodeOtherDevice`, `NodeEnrolled`,
    `NodeRevoked`, `TicketOutdated`.
    """
    await _check_free(session, node, claimed)
    known = await session.get(NodeRow, node, with_for_update=True)
    if known is None:
        return None
    squatted = not known.approved and ticket is not None  # anybody's TPM may have asked for this name before
    if not squatted:
        _check_same(known, claimed)
    if ticket is None:
        raise NodeEnrolled(f"node {node} is enrolled already", advice="an operator makes a new ticket for new keys")
    if known.standing in FALLEN and ticket.created_at <= known.changed_at:
        detail = f"node {node} was {known.standing} after the ticket was made"
        refusal = NodeRevoked if known.standing == Standing.REVOKED.value else TicketOutdated
        raise refusal(detail, advice="an operator who knows that makes a new ticket")
    return known


async def _check_free(session: AsyncSession, node: str, claimed: Identity) -> None:
    """No other node has this TPM, nor the identity of this device."""
    others = select(NodeRow.id).where(NodeRow.id != node)
    if await session.scalar(others.where(NodeRow.ek_sha256 == claimed.ek_sha256)) is not None:
        raise EkEnrolledElsewhere("this TPM is enrolled as another node")
    columns = (NodeRow.iak_sha256, claimed.iak_sha256), (NodeRow.idevid_sha256, claimed.idevid_sha256)
    for column, value in columns:
        if value is not None and await session.scalar(others.where(column == value)) is not None:
            raise DeviceEnrolledElsewhere("this device is enrolled as another node")


def _check_same(known: NodeRow, claimed: Identity) -> None:
    """A node keeps its TPM, and the identity of its device once it has shown one."""
    if known.ek_sha256 != claimed.ek_sha256:
        raise NodeOtherEk(f"node {known.id} is enrolled with another TPM")
    if known.iak_sha256 not in {None, claimed.iak_sha256} or known.idevid_sha256 not in {None, claimed.idevid_sha256}:
        raise NodeOtherDevice(f"node {known.id} is enrolled with the identity of another device, or of one at all")


def _sha256(public: bytes | None) -> str | None:
    return None if public is None else ek_sha256(parse_public(public))
