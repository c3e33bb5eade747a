"""Challenges without state: everything that an answer must match is in the token, under our MAC.

The nonce that the TPM signs is the hash of the token, MAC included, so a quote binds node, AK, selection, policy, round
and deadline, nobody knows it beforehand, and a verifier that restarts in between still knows its own challenge.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from umec_attest.service.errors import NonceExpired, NonceUnknown
from umec_attest.service.wire import instant
from umec_core.errors import UmecError
from umec_core.jose import base64url_decode, base64url_encode

__all__ = ["MAC_SIZE", "Challenge", "ChallengeSeal"]

MAX_CHALLENGE: Final = 2048
"""Characters; ours have some 500."""

MAC_SIZE: Final = 32
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What was asked of a node.

    `ak` is the Name of its AK, `runtime_from` the entry from which on its list of what runs is wanted (None: not at
    all), `starts_from` the same of its log of starts, `salt` makes two challenges of a round differ.
    """

    node: str
    ak: str
    pcrs: tuple[int, ...]
    runtime_from: int | None
    policy: str
    round: int
    expires_at: datetime
    salt: str
    starts_from: int | None = None

    def to_bytes(self) -> bytes:
        """Return the bytes that are sealed."""
        expires = (self.expires_at - EPOCH) // timedelta(microseconds=1)
        asked = [list(self.pcrs), self.runtime_from, self.starts_from, self.policy]
        return json.dumps([self.node, self.ak, *asked, self.round, expires, self.salt], separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Challenge":
        """Read what `to_bytes` wrote; only for bytes that carried our MAC."""
        node, ak, pcrs, runtime_from, starts_from, policy, number, expires, salt = json.loads(data)
        expires_at = EPOCH + timedelta(microseconds=expires)
        return cls(node, ak, tuple(pcrs), runtime_from, policy, number, expires_at, salt, starts_from)


class ChallengeSeal:
    """Seals challenges with one key (32 bytes, kept with the keys of the service)."""

    def __init__(self, key: bytes) -> None:
        if len(key) != MAC_SIZE:
            raise ValueError("the key of challenges has 32 bytes")
        # the number is that of the form: a challenge of a former release is none of ours
        self._mac_key = hmac.digest(key, b"umec challenge mac 4", "sha256")

    def seal(self, challenge: Challenge) -> tuple[str, bytes]:
        """Return the token and the nonce (32 bytes) that the TPM has to sign."""
        body = challenge.to_bytes()
        sealed = self._mac(body) + body
        return base64url_encode(sealed), hashlib.sha256(sealed).digest()

    def open(self, token: str, *, node: str, ak: str, now: datetime) -> tuple[Challenge, bytes]:
        """Return a challenge and its nonce; raises `NonceUnknown` or `NonceExpired`.

        1. It is ours. 2. It was made for this node and this AK. 3. Its deadline is not over.
        """
        sealed = self._sealed(token)  # 1
        challenge = Challenge.from_bytes(sealed[MAC_SIZE:])
        if challenge.node != node or challenge.ak != ak:  # 2
            raise NonceUnknown("the challenge was made for another node or another attestation key")
        if now >= challenge.expires_at:  # 3
            raise NonceExpired(f"the deadline of the challenge was {instant(challenge.expires_at)}")
        return challenge, hashlib.sha256(sealed).digest()

    def _sealed(self, token: str) -> bytes:
        try:
            data = base64url_decode(token) if len(token) <= MAX_CHALLENGE else b""
        except UmecError:
            data = b""
        if not hmac.compare_digest(data[:MAC_SIZE], self._mac(data[MAC_SIZE:])):
            raise NonceUnknown("the challenge is not one of ours", advice="ask for a new challenge")
        return data

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._mac_key, body, "sha256")
