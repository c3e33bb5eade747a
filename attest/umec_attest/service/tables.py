"""The rows of the attestation service; `migrations/versions` makes the same tables."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from umec_core.audit import AuditMixin
from umec_core.store import RowId, Timestamp

__all__ = [
    "AuditRow",
    "Base",
    "BootLogRow",
    "EnrolmentRow",
    "EvidenceRow",
    "NodeRow",
    "PolicyBundleRow",
    "PresenceRow",
    "ReferenceRow",
    "RoundRow",
    "SecretRow",
    "StandingRow",
    "TicketRow",
]


class Base(DeclarativeBase):
    """All tables of the service."""

    metadata = MetaData()
    type_annotation_map = {datetime: Timestamp, bytes: LargeBinary}  # noqa: RUF012 - SQLAlchemy's way to say it


class TicketRow(Base):
    """An operator's word that a TPM is an asset: kept by the hash of its secret, used once."""

    __tablename__ = "ticket"

    secret_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    node: Mapped[str]
    tenant: Mapped[str]
    image: Mapped[str]
    node_class: Mapped[str]
    ek_sha256: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class EnrolmentRow(Base):
    """An enrolment under way: what the activation will be about."""

    __tablename__ = "enrolment"

    id: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str]
    secret_sha256: Mapped[bytes]
    ticket: Mapped[bytes | None] = mapped_column(ForeignKey("ticket.secret_sha256"))
    ek_sha256: Mapped[str] = mapped_column(index=True)
    ek_public: Mapped[bytes]
    ak_public: Mapped[bytes]
    node_key_public: Mapped[bytes]
    endorsed_by: Mapped[str]
    iak_public: Mapped[bytes | None]
    idevid_public: Mapped[bytes | None]
    shown: Mapped[str] = mapped_column(Text)
    """What its certificates say about TPM and device (JSON), for the audit log."""
    address: Mapped[str] = mapped_column(index=True)
    """Where the request came from: enrolments without a ticket are bounded by it."""
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class NodeRow(Base):
    """A node: its keys, its standing, and what the last round of evidence said."""

    __tablename__ = "node"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str | None]
    image: Mapped[str | None]
    node_class: Mapped[str] = mapped_column(default="standard")
    """"standard" or "open-box": whether boots have to be announced."""
    reset_watch: Mapped[str | None] = mapped_column(Text)
    """Boots of an open box (JSON of `umec_attest.resets.ResetWatch`)."""
    ek_sha256: Mapped[str] = mapped_column(unique=True)
    iak_sha256: Mapped[str | None] = mapped_column(unique=True)
    """The identity of its device, where it has shown one; as `ek_sha256`, it stays when keys change."""
    idevid_sha256: Mapped[str | None] = mapped_column(unique=True)
    ek_public: Mapped[bytes]
    ak_public: Mapped[bytes]
    node_key_public: Mapped[bytes]
    approved: Mapped[bool]
    standing: Mapped[str]
    generation: Mapped[int]
    reason: Mapped[str]
    changed_at: Mapped[datetime]
    enrolled_at: Mapped[datetime]
    deadline: Mapped[datetime | None] = mapped_column(index=True)
    rounds: Mapped[int]
    """Rounds that counted. A challenge carries the number of before, so it is answered once."""
    answered: Mapped[bytes | None]
    """The nonce of the challenge that was answered last: who repeats that answer hears so."""
    clock_state: Mapped[str | None] = mapped_column(Text)
    """Clock and counters of the last accepted quote (JSON of `ClockState`)."""
    fell_at_reset: Mapped[int | None] = mapped_column(RowId)
    """The resetCount at which the node was found untrusted; only a higher one can bring it back."""
    boot_log_sha256: Mapped[str | None] = mapped_column(index=True)
    boot_log_reset: Mapped[int | None] = mapped_column(RowId)
    version_floor: Mapped[str | None] = mapped_column(Text)
    """The versions of its image that it stood on (JSON of `umec_attest.floors.VersionFloor`)."""
    runtime_checkpoint: Mapped[str | None] = mapped_column(Text)
    """How far the list of what ran is judged (JSON of `ImaCheckpoint`)."""
    start_checkpoint: Mapped[str | None] = mapped_column(Text)
    """The same of the log of starts (JSON of `StartCheckpoint`)."""
    last_round: Mapped[str | None] = mapped_column(Text)
    """What the last round said (JSON), apart from its time and its evidence: they are another with each round."""
    round_at: Mapped[datetime | None]
    evidence_sha256: Mapped[str | None]
    last_seq: Mapped[int] = mapped_column(RowId, index=True, default=0)
    """The newest row of the standing feed about this node."""
    result: Mapped[str | None] = mapped_column(Text)
    """The attestation result (EAR) that was issued last; worth nothing without the node key."""
    result_basis: Mapped[str | None]
    """SHA-256 (hex) over what that result says apart from its round: another basis, another result."""
    result_expires_at: Mapped[datetime | None]


class BootLogRow(Base):
    """A boot log that belonged to a verified quote; one for all nodes that booted the same."""

    __tablename__ = "boot_log"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[bytes]
    stored_at: Mapped[datetime]


class RoundRow(Base):
    """A round that changed something: what it said, by what, and the hashes of its evidence."""

    __tablename__ = "round"
    __table_args__ = (Index("ix_round_node_seq", "node", "seq"),)

    seq: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    node: Mapped[str]
    at: Mapped[datetime] = mapped_column(index=True)
    round: Mapped[int]
    verdict: Mapped[str]
    findings: Mapped[str] = mapped_column(Text)
    """Their ids (JSON list)."""
    standing: Mapped[str]
    generation: Mapped[int]
    reset_count: Mapped[int] = mapped_column(RowId)
    boot_log_sha256: Mapped[str]
    evidence_sha256: Mapped[str]
    reference_version: Mapped[int] = mapped_column(RowId)
    reference_sha256: Mapped[str]
    policy_sha256: Mapped[str]


class EvidenceRow(Base):
    """The evidence of a round that contradicted, for whoever wants to judge that boot again: no list of what ran."""

    __tablename__ = "evidence"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(index=True)
    boot_log_sha256: Mapped[str] = mapped_column(index=True)
    content: Mapped[str] = mapped_column(Text)
    kept_at: Mapped[datetime] = mapped_column(index=True)


class StandingRow(Base):
    """The standing feed: one row for each change, written in the transaction of the change."""

    __tablename__ = "standing"

    seq: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    node: Mapped[str] = mapped_column(index=True)
    tenant: Mapped[str | None]
    standing: Mapped[str]
    generation: Mapped[int]
    changed_at: Mapped[datetime] = mapped_column(index=True)


class PresenceRow(Base):
    """When a process of the service could last write, by its own clock: these rows tell absence from silence."""

    __tablename__ = "presence"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The random name of that process."""
    seen_at: Mapped[datetime]


class ReferenceRow(Base):
    """A signed reference set, as it came."""

    __tablename__ = "reference_set"

    image: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    envelope: Mapped[bytes]
    sha256: Mapped[str]
    expires_at: Mapped[datetime]
    installed_at: Mapped[datetime]
    shortened: Mapped[datetime | None]
    """When an operator ends the grace that this set gives to older ones; None: it ends as it was signed."""


class PolicyBundleRow(Base):
    """The version of signed policies that was in use last: an older one is refused."""

    __tablename__ = "policy_bundle"

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    loaded_at: Mapped[datetime]


class SecretRow(Base):
    """A secret that an operator stored for the TPM of a node; `kept` is encrypted (`vault.cabinet`)."""

    __tablename__ = "secret"

    node: Mapped[str] = mapped_column(ForeignKey("node.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    ek_sha256: Mapped[str]
    degraded: Mapped[bool]
    kept: Mapped[bytes]
    set_by: Mapped[str]
    set_at: Mapped[datetime]
    releases: Mapped[int]
    released_at: Mapped[datetime | None]


class AuditRow(AuditMixin, Base):
    """The audit log of the service."""

    __tablename__ = "audit"
