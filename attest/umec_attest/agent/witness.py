"""The node as a witness of the verifier's audit log: it keeps the last checkpoint that it saw.

Whoever rewrites, cuts or forks the log shows somebody a checkpoint that does not go on from an older one. A verifier
that does so is believed no more: the node takes no results from it, until an operator has looked and resets this.

1. The key of the log is the one of the enrolment, or of the first contact where that gave none; TLS vouches for it.
2. The checkpoint is signed by that key.
3. The log is not shorter than it was.
4. A proof connects the older checkpoint with the newer one (RFC 6962, 2.1.2).
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from umec_attest.agent.errors import (
    AgentStateInvalid,
    LogDistrusted,
    LogInconsistent,
    LogKeyChanged,
    LogRefused,
    LogShrunk,
)
from umec_attest.agent.fields import FieldInvalid, Fields, read_object
from umec_attest.agent.state import LOG_FILE
from umec_attest.agent.wire import ShownCheckpoint
from umec_core.keys import read_private, write_private
from umec_core.note import Checkpoint, NoteError, verify_checkpoint
from umec_core.tree import ConsistencyInvalid, verify_consistency

__all__ = ["LogWitness", "Refusal", "SeenLog", "next_seen", "shown_log"]

FORMAT: Final = 1
MAX_NOTE: Final = 16384
MAX_KEY: Final = 1024
MAX_TEXT: Final = 2048

Ask = Callable[[int], Awaitable[ShownCheckpoint]]
"""Asks the verifier for its newest checkpoint, with the proof from a log of so many entries."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the log is not believed any more; `checkpoint` is what was shown, which proves it to anybody."""

    code: str
    detail: str
    at: datetime
    checkpoint: str


@dataclass(frozen=True, slots=True)
class SeenLog:
    """What is known of the verifier's log: `key` is a SubjectPublicKeyInfo, `checkpoint` a signed note."""

    origin: str
    key: bytes
    checkpoint: str
    refusal: Refusal | None = None

    def verified(self) -> Checkpoint:
        """Return what the log had committed to. Raises LogKeyChanged."""
        return _verified(self.checkpoint, self.origin, self.key)

    def to_json(self) -> bytes:
        """Return the content of the file."""
        refused = self.refusal
        members: dict[str, Any] = {
            "format": FORMAT,
            "origin": self.origin,
            "key": self.key.hex(),
            "checkpoint": self.checkpoint,
        }
        if refused is not None:
            members["refused"] = {
                "code": refused.code,
                "detail": refused.detail,
                "at": refused.at.isoformat(),
                "checkpoint": refused.checkpoint,
            }
        return json.dumps(members, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote. Raises FieldInvalid."""
        fields = read_object(data)
        fields.integer("format", least=FORMAT, most=FORMAT)
        seen = cls(
            origin=fields.text("origin", shortest=1, longest=MAX_TEXT),
            key=fields.hexadecimal("key", most=MAX_KEY),
            checkpoint=fields.text("checkpoint", longest=MAX_NOTE),
            refusal=fields.optional("refused", lambda name: _refusal(fields.inside(name))),
        )
        fields.end()
        return seen


class LogWitness:
    """Keeps what was seen of the verifier's log in the state directory, in a file of mode 0600."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG_FILE

    def seen(self) -> SeenLog | None:
        """Return what is known of the log; raises AgentStateInvalid, so that a spoilt memory is no empty one."""
        if not self._path.exists():
            return None
        try:
            return SeenLog.from_json(read_private(self._path))
        except FieldInvalid as error:
            raise AgentStateInvalid(
                f"{self._path} is not what was seen of the verifier's log", advice="umec node trust-log --reset"
            ) from error

    def check(self) -> None:
        """Return unless the log was refused before. Raises LogDistrusted, AgentStateInvalid."""
        seen = self.seen()
        if seen is not None and seen.refusal is not None:
            raise LogDistrusted(
                f"since {seen.refusal.at.isoformat(timespec='seconds')} the verifier's log is not believed: "
                f"{seen.refusal.code}: {seen.refusal.detail}",
                advice="find out why, then: umec node trust-log --reset",
            )

    async def look(self, ask: Ask, now: datetime) -> None:
        """Ask for the newest checkpoint and keep it. Raises LogRefused, which is kept, too; and what `ask` raises."""
        self.check()
        seen = self.seen()
        shown = await ask(0 if seen is None else seen.verified().size)
        try:
            newer = next_seen(seen, shown)
        except LogRefused as error:
            if seen is not None:
                refusal = Refusal(error.code, error.detail, now, shown.checkpoint)
                write_private(self._path, replace(seen, refusal=refusal).to_json())
            raise
        if newer != seen:
            write_private(self._path, newer.to_json())

    def forget(self) -> None:
        """Let the next look be the first one: for a new enrolment, or an operator who has found out why."""
        self._path.unlink(missing_ok=True)


def shown_log(seen: SeenLog) -> dict[str, Any]:
    """Return what an operator wants to see of a log that is believed."""
    checkpoint = seen.verified()
    return {"origin": seen.origin, "entries": checkpoint.size, "root": checkpoint.root.hex()}


def next_seen(seen: SeenLog | None, shown: ShownCheckpoint) -> SeenLog:
    """Return what is to be kept after this was shown. Raises LogRefused with its subclasses."""
    origin, key = (shown.origin, shown.key) if seen is None else (seen.origin, seen.key)  # 1
    newer = _verified(shown.checkpoint, origin, key)  # 2
    if seen is not None:
        _check_grown(seen.verified(), newer, shown.proof)
    return SeenLog(origin, key, shown.checkpoint)


def _check_grown(older: Checkpoint, newer: Checkpoint, proof: tuple[bytes, ...]) -> None:
    if newer.size < older.size:  # 3
        raise LogShrunk(f"the verifier's log has {newer.size} entries, it had {older.size}")
    if older.size == 0:
        return  # every log begins with nothing
    try:
        verify_consistency(older.size, newer.size, proof, older.root, newer.root)  # 4
    except ConsistencyInvalid as error:
        raise LogInconsistent(
            f"the verifier's log of {newer.size} entries does not begin with the {older.size} that were seen"
        ) from error


def _verified(checkpoint: str, origin: str, key: bytes) -> Checkpoint:
    try:
        public = load_der_public_key(key)
    except ValueError as error:
        raise LogKeyChanged("the key of the verifier's log is none") from error
    if not isinstance(public, EllipticCurvePublicKey):
        raise LogKeyChanged("the key of the verifier's log is of another kind")
    try:
        return verify_checkpoint(checkpoint, origin, public)
    except NoteError as error:
        raise LogKeyChanged(f"the checkpoint is not one of the log whose key is known: {error.detail}") from error


def _refusal(fields: Fields) -> Refusal:
    refusal = Refusal(
        fields.text("code", longest=MAX_TEXT),
        fields.text("detail", longest=MAX_TEXT),
        fields.instant("at"),
        fields.text("checkpoint", longest=MAX_NOTE),
    )
    fields.end()
    return refusal
