"""The audit log: changes of state, issuances and refusals, as entries of an RFC 6962 tree with signed checkpoints.

An entry is written in the transaction of what it tells about. It is canonical JSON (members sorted, no spaces, UTF-8),
so anybody can recompute its leaf; the checkpoint is a C2SP signed note. Whoever kept an older checkpoint can prove that
nothing before it was changed.

    AuditError
    ├── AuditGap                  audit-gap                  an entry is missing, twice or out of order
    ├── AuditRewritten            audit-rewritten            entries do not lead to a root that was signed
    └── AuditCheckpointInvalid    audit-checkpoint-invalid   a checkpoint is not signed by the log's key
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection, LargeBinary, Table, Text, func, insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.errors import UmecError
from umec_core.metrics import AUDITED
from umec_core.note import Checkpoint, NoteError, sign_checkpoint, verify_checkpoint
from umec_core.store import RowId, Timestamp, serialise_plain
from umec_core.tree import Tree, leaf_hash

__all__ = [
    "AuditCheckpointInvalid",
    "AuditEntry",
    "AuditError",
    "AuditGap",
    "AuditLog",
    "AuditMixin",
    "AuditRewritten",
    "canonical",
    "verify_export",
]

PAGE: Final = 10_000
"""Rows that are read at once when a tree is built."""

EXPORTED: Final = 5_000
"""Entries of one export, some two megabytes: who wants more asks again, from where the last one ended."""

log = structlog.get_logger("umec.audit")


class AuditError(UmecError):
    """An audit log does not prove that it is complete and unchanged."""

    code = "audit-invalid"


class AuditGap(AuditError):
    """An entry is missing, occurs twice or is out of order."""

    code = "audit-gap"


class AuditRewritten(AuditError):
    """The entries do not lead to a root that was signed."""

    code = "audit-rewritten"


class AuditCheckpointInvalid(AuditError):
    """A checkpoint is not one that the key of this log has signed."""

    code = "audit-checkpoint-invalid"


class AuditMixin:
    """The columns of an audit table; `index` counts from 0 without gaps."""

    index: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    entry: Mapped[str] = mapped_column(Text)
    leaf: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(Timestamp)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What is to be written: `actor` did `action` to `subject` at `now`; see `AuditLog.append`."""

    actor: str
    action: str
    subject: str
    outcome: str
    now: datetime
    code: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def row(self, index: int) -> dict[str, Any]:
        """Return the columns of the entry under its number."""
        at = self.now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        entry: dict[str, Any] = {
            "index": index,
            "at": at,
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "outcome": self.outcome,
            "facts": dict(self.facts),
        }
        if self.code is not None:
            entry["code"] = self.code
        text = canonical(entry)
        return {"index": index, "entry": text, "leaf": leaf_hash(text.encode()), "at": self.now}


class AuditLog:
    """Writes and shows the audit log of one service."""

    def __init__(self, row_type: type[AuditMixin], key: EllipticCurvePrivateKey, origin: str) -> None:
        self._row_type = row_type
        self._key = key
        self._origin = origin
        self._tree = Tree()
        self._last: bytes | None = None
        self._reading = asyncio.Lock()
        self._signed: tuple[int, bytes, str] | None = None

    async def append(
        self,
        session: AsyncSession,
        *,
        actor: str,
        action: str,
        subject: str,
        outcome: str,
        code: str | None = None,
        facts: Mapping[str, Any] | None = None,
        now: datetime,
    ) -> int:
        """Add an entry in the caller's transaction and return its index.

        `actor` did `action` to `subject`; `outcome` is "done" or "refused", a refusal with its `code`. `facts` are JSON
        values that make the entry checkable (digests, generations) and never secrets.
        """
        entry = AuditEntry(
            actor=actor, action=action, subject=subject, outcome=outcome, now=now, code=code, facts=facts or {}
        )
        return await self.append_all(session, [entry])

    async def append_all(self, session: AsyncSession, entries: Sequence[AuditEntry]) -> int:
        """Add entries in their order in the caller's transaction and return the index of the first."""
        return await (await session.connection()).run_sync(self.append_plain, entries)

    def append_plain(self, connection: Connection, entries: Sequence[AuditEntry]) -> int:
        """Do what `append_all` does, on a plain connection (`Store.write_plain`)."""
        kind = self._row_type
        serialise_plain(connection, f"audit:{kind.__name__}")
        last = connection.scalar(select(func.max(kind.index)))
        first = 0 if last is None else last + 1
        if entries:
            rows = [entry.row(index) for index, entry in enumerate(entries, first)]
            connection.execute(insert(cast("Table", inspect(kind).local_table)), rows)
        for entry in entries:
            AUDITED.labels(entry.action, entry.outcome).inc()
        return first

    async def checkpoint(self, session: AsyncSession) -> str:
        """Return a signed checkpoint of all committed entries; `session` comes from `Store.read`."""
        size, root = await self._committed(session)
        return self._sign(size, root)

    async def witness(self, session: AsyncSession, first: int) -> tuple[str, list[bytes]]:
        """Return a signed checkpoint of all committed entries, and the proof that they begin with the `first` ones.

        The proof (RFC 6962, 2.1.2) is empty where there is nothing to prove: from nothing, or from more than there is.
        `session` comes from `Store.read`.
        """
        size, root = await self._committed(session)
        proof = self._tree.consistency(first, size) if 0 < first <= size else []
        return self._sign(size, root), proof

    async def export(self, session: AsyncSession, *, after: int = 0) -> dict[str, Any]:
        """Return `{"origin", "entries": [object, …], "checkpoint": signed note}`; `session` comes from `Store.read`.

        The entries begin behind the first `after` ones. Where `EXPORTED` are not enough, `next` says how many have been
        seen: the next export is asked for with that `after`. Together they are one export, with the checkpoint of the
        last.
        """
        size, root = await self._committed(session)
        kind, end = self._row_type, min(size, after + EXPORTED)
        rows = await session.scalars(
            select(kind.entry).where(kind.index >= after, kind.index < end).order_by(kind.index)
        )
        page: dict[str, Any] = {
            "origin": self._origin,
            "entries": [json.loads(row) for row in rows],
            "checkpoint": self._sign(size, root),
        }
        return page if end == size or after > size else {**page, "next": end}

    def _sign(self, size: int, root: bytes) -> str:
        """Sign a checkpoint; the same one is signed once, however many ask for it."""
        if self._signed is None or self._signed[:2] != (size, root):
            self._signed = (size, root, sign_checkpoint(self._origin, size, root, self._key))
        return self._signed[2]

    async def _committed(self, session: AsyncSession) -> tuple[int, bytes]:
        """Return size and root of what is committed, reading only the leaves that are new since the last time.

        The last leaf of that time is read again: a database that was restored or has failed over may have lost it, and
        then all are read anew, so that nothing is signed of which there is no entry.
        """
        kind = self._row_type
        async with self._reading:
            if self._last is not None:
                last = await session.scalar(select(kind.leaf).where(kind.index == self._tree.size - 1))
                if last != self._last:
                    log.error("the database lost entries of the audit log", origin=self._origin, size=self._tree.size)
                    self._tree, self._last = Tree(), None
            while True:
                query = select(kind.leaf).where(kind.index >= self._tree.size).order_by(kind.index).limit(PAGE)
                leaves = list(await session.scalars(query))
                for leaf in leaves:
                    self._tree.append_hash(leaf)
                    self._last = leaf
                if len(leaves) < PAGE:
                    return self._tree.size, self._tree.root()


class _Export(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    origin: str
    entries: list[dict[str, Any]]
    checkpoint: str


_encoder: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Mapping[str, Any]) -> str:
    """Return canonical JSON: members sorted, no spaces, no escapes that are not needed.

    Raises TypeError for what is not a string, integer, boolean, null, list or object of these: a float has no one form.
    """
    _no_floats(value)
    return _encoder.encode(value)


def verify_export(
    export: Mapping[str, Any], key: EllipticCurvePublicKey, previous_checkpoint: str | None = None
) -> Checkpoint:
    """Check an exported log and return its checkpoint, to be kept for the next time.

    1. the export has the members of one; 2. its checkpoint is signed by `key`; 3. entries are numbered 0, 1, 2 … and
    are as many as the checkpoint says; 4. they lead to its root; 5. they begin with what the previous checkpoint
    committed to. Raises `AuditCheckpointInvalid`, `AuditGap` or `AuditRewritten`.
    """
    try:
        log = _Export.model_validate(dict(export))  # 1
    except ValidationError as error:
        raise AuditGap("this is not an exported audit log") from error
    checkpoint = _checkpoint(log.checkpoint, log.origin, key)  # 2
    for expected, entry in enumerate(log.entries):  # 3
        if entry.get("index") != expected:
            raise AuditGap(f"entry {expected} is missing, twice or out of order")
    if len(log.entries) < checkpoint.size:
        raise AuditGap(f"the log has {len(log.entries)} entries, its checkpoint counts {checkpoint.size}")
    tree = _rebuild(log.entries)
    _same_root(tree, checkpoint)  # 4
    if len(log.entries) > checkpoint.size:
        raise AuditRewritten(f"the log has {len(log.entries)} entries, its checkpoint counts {checkpoint.size}")
    if previous_checkpoint is not None:  # 5
        previous = _checkpoint(previous_checkpoint, log.origin, key)
        if previous.size > checkpoint.size:
            raise AuditGap(f"the log has {checkpoint.size} entries, an older checkpoint counted {previous.size}")
        _same_root(tree, previous)
    return checkpoint


def _checkpoint(text: str, origin: str, key: EllipticCurvePublicKey) -> Checkpoint:
    try:
        return verify_checkpoint(text, origin, key)
    except NoteError as error:
        raise AuditCheckpointInvalid(error.detail) from error


def _rebuild(entries: Sequence[Mapping[str, Any]]) -> Tree:
    tree = Tree()
    try:
        for entry in entries:
            tree.append(canonical(entry).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise AuditRewritten("an entry has no canonical form") from error
    return tree


def _same_root(tree: Tree, checkpoint: Checkpoint) -> None:
    if tree.root(checkpoint.size) != checkpoint.root:
        raise AuditRewritten(f"the first {checkpoint.size} entries do not lead to the root that was signed")


def _no_floats(value: object) -> None:
    """Refuse what the encoder would write, although it has more than one form; the encoder refuses all else."""
    if isinstance(value, float):
        raise TypeError("canonical JSON has no float")
    if isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str):
                raise TypeError("a member's name is a string")
            _no_floats(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _no_floats(member)
