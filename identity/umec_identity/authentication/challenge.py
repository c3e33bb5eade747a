"""Challenges for proofs of possession: made without keeping anything, good once, for a minute.

A challenge is time, randomness and a MAC over both; what was used is remembered in the database, so it is good once on
every replica that shares the key.
"""

import hashlib
import hmac
import secrets
import struct
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from umec_core.jose import JwtMalformed, base64url_decode, base64url_encode
from umec_identity.errors import ChallengeInvalid
from umec_identity.rows import Used

__all__ = ["Challenges"]

LIFE: Final = timedelta(seconds=60)
"""A node asks for a challenge right before it uses it."""

BODY: Final = struct.Struct(">Q16s")


class Challenges:
    """Makes and checks challenges under one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the key of the challenges has less than 32 bytes")
        self._key = key

    @classmethod
    def under(cls, key: EllipticCurvePrivateKey) -> "Challenges":
        """Return challenges under a key derived from another one that all replicas have."""
        secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return cls(HKDF(algorithm=SHA256(), length=32, salt=None, info=b"umec attestation challenge v1").derive(secret))

    def make(self, now: datetime) -> str:
        """Return a new challenge."""
        body = BODY.pack(int(now.timestamp()), secrets.token_bytes(16))
        return base64url_encode(body + self._mac(body))

    def verify(self, text: str, now: datetime) -> Used:
        """Return what is used up with this challenge; raises `ChallengeInvalid`."""
        try:
            data = base64url_decode(text)
        except JwtMalformed as error:
            raise ChallengeInvalid("the challenge is none of ours", advice="POST /oauth2/challenge") from error
        body, mac = data[: BODY.size], data[BODY.size :]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise ChallengeInvalid("the challenge is none of ours", advice="POST /oauth2/challenge")
        made = datetime.fromtimestamp(BODY.unpack(body)[0], UTC)
        if not made <= now <= made + LIFE:
            raise ChallengeInvalid("the challenge is too old", advice="POST /oauth2/challenge and use it at once")
        return Used("challenge", "", text, until=made + LIFE)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)
