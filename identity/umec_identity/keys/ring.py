"""The token keys: published before their first use, and until the last token that they signed has ended.

published ──(PUBLISHED_BEFORE)── signs ─────────────── next one signs ──(longest life of a token)── gone
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from umec_core.errors import UmecError
from umec_core.jose import SKEW, KeySet, thumbprint
from umec_core.keys import load_key, load_or_create_key, read_private, write_private
from umec_core.tokens import KEYS_LIFE, MAX_LIFE

__all__ = ["KeyRing", "KeyRingInvalid", "RingKey", "keep", "published", "signing"]

PUBLISHED_BEFORE: Final = 2 * KEYS_LIFE
"""How long a key is published before it signs: every API has read the set again by then."""

PUBLISHED_AFTER: Final = MAX_LIFE + 2 * SKEW
"""How long a key is published after its last signature."""


class KeyRingInvalid(UmecError):
    """The list of token keys cannot be read."""

    code = "key-ring-invalid"


@dataclass(frozen=True, slots=True)
class RingKey:
    """A key of the ring, and since when it signs."""

    kid: str
    key: EllipticCurvePrivateKey
    signs_from: datetime
    file: str


def signing(keys: tuple[RingKey, ...], now: datetime) -> RingKey:
    """Return the key that signs now: of those whose time has come, the last."""
    ordered = sorted(keys, key=lambda key: key.signs_from)
    ready = [key for key in ordered if key.signs_from <= now]
    return ready[-1] if ready else ordered[0]


def published(keys: tuple[RingKey, ...]) -> KeySet:
    """Return the set that is published."""
    return KeySet([key.key.public_key() for key in keys])


def keep(keys: tuple[RingKey, ...], now: datetime) -> tuple[RingKey, ...]:
    """Return the keys without those that a later key replaced so long ago that no token of theirs is valid."""
    ordered = sorted(keys, key=lambda key: key.signs_from)
    followers = [*(key.signs_from for key in ordered[1:]), None]
    return tuple(
        key
        for key, follower in zip(ordered, followers, strict=True)
        if follower is None or follower + PUBLISHED_AFTER > now
    )


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    signs_from: datetime


_entries: Final = TypeAdapter(list[_Entry])


class KeyRing:
    """The token keys in a folder: a file each (0600), and `ring.json`, which says since when each signs."""

    def __init__(self, folder: Path, keys: tuple[RingKey, ...]) -> None:
        self._folder = folder
        self._keys = keys

    @classmethod
    def open(cls, folder: Path, now: datetime) -> "KeyRing":
        """Return the ring of a folder, with a first key that signs at once where there is none."""
        index = folder / "ring.json"
        if not index.exists():
            ring = cls(folder, ())
            ring._add(now, now)
            return ring
        try:
            entries = _entries.validate_json(read_private(index))
        except ValidationError as error:
            raise KeyRingInvalid(f"{index} is not a list of keys") from error
        if not entries or any(Path(entry.file).name != entry.file for entry in entries):
            raise KeyRingInvalid(f"{index} names no keys, or keys outside of its folder")
        return cls(folder, tuple(_load(folder, entry) for entry in entries))

    def signing(self, now: datetime) -> RingKey:
        """Return the key that signs now."""
        return signing(self._keys, now)

    def published(self) -> KeySet:
        """Return the set that is published."""
        return published(self._keys)

    async def keys(self, kid: str | None) -> KeySet:  # noqa: ARG002 - always up to date
        """Return the published set: the ring is the `KeySource` of the APIs in its own process."""
        return self.published()

    def rotate(self, now: datetime) -> RingKey:
        """Make the next key, published from now on, and return it; it signs once every API can know it."""
        return self._add(now, now + PUBLISHED_BEFORE)

    def tend(self, now: datetime, *, life: timedelta) -> None:
        """Rotate if the newest key has signed for `life`, and drop what no valid token was signed with."""
        if max(key.signs_from for key in self._keys) + life <= now:
            self.rotate(now)
        if (kept := keep(self._keys, now)) != self._keys:
            self._keys = kept
            self._write()

    def _add(self, now: datetime, signs_from: datetime) -> RingKey:
        name = f"token-{now.strftime('%Y%m%dT%H%M%S%f')}.pem"
        key = load_or_create_key(self._folder / name)
        added = RingKey(thumbprint(key), key, signs_from, name)
        self._keys = (*self._keys, added)
        self._write()
        return added

    def _write(self) -> None:
        entries = [{"file": key.file, "signs_from": key.signs_from.isoformat()} for key in self._keys]
        write_private(self._folder / "ring.json", json.dumps(entries, indent=1).encode() + b"\n")
        for path in self._folder.glob("token-*.pem"):
            if path.name not in {key.file for key in self._keys}:
                path.unlink()


def _load(folder: Path, entry: _Entry) -> RingKey:
    key = load_key(folder / entry.file)
    return RingKey(thumbprint(key), key, entry.signs_from.astimezone(UTC), entry.file)
