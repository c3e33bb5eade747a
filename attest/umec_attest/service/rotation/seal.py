"""Permits to rotate, without state: what was asked, under our MAC. The secret is derived from the same bytes.

A permit names the generation that it ends. Once it had its effect the node is in the next one, so it is good once.
"""

import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from umec_attest.service.rotation.errors import RotationExpired, RotationUnknown
from umec_attest.service.wire import instant
from umec_core.errors import UmecError
from umec_core.jose import base64url_decode, base64url_encode

__all__ = ["Permit", "RotationSeal"]

MAC_SIZE: Final = 32
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Permit:
    """Which keys, by their Names in hex, a node of this generation may have; `salt` makes two permits differ."""

    node: str
    generation: int
    ak: str
    node_key: str
    expires_at: datetime
    salt: str

    def to_bytes(self) -> bytes:
        """Return the bytes that are sealed."""
        expires = (self.expires_at - EPOCH) // timedelta(microseconds=1)
        members = [self.node, self.generation, self.ak, self.node_key, expires, self.salt]
        return json.dumps(members, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Permit":
        """Read what `to_bytes` wrote; only for bytes that carried our MAC."""
        node, generation, ak, node_key, expires, salt = json.loads(data)
        return cls(node, generation, ak, node_key, EPOCH + timedelta(microseconds=expires), salt)


class RotationSeal:
    """Seals permits with one key, which others use for other things under other labels."""

    def __init__(self, key: bytes) -> None:
        self._mac_key = hmac.digest(key, b"umec rotation mac", "sha256")
        self._secret_key = hmac.digest(key, b"umec rotation secret", "sha256")

    def seal(self, permit: Permit) -> tuple[str, bytes]:
        """Return the token, and the secret (32 bytes) that only the node's TPM is to learn."""
        body = permit.to_bytes()
        return base64url_encode(self._mac(body) + body), self._secret(body)

    def open(self, token: str, *, node: str, now: datetime) -> tuple[Permit, bytes]:
        """Return a permit and its secret; raises `RotationUnknown` or `RotationExpired`."""
        body = self._body(token)
        permit = Permit.from_bytes(body)
        if permit.node != node:
            raise RotationUnknown("the permit was made for another node")
        if now >= permit.expires_at:
            raise RotationExpired(f"the deadline of the rotation was {instant(permit.expires_at)}", advice="ask again")
        return permit, self._secret(body)

    def _body(self, token: str) -> bytes:
        try:
            data = base64url_decode(token)
        except UmecError:
            data = b""
        mac, body = data[:MAC_SIZE], data[MAC_SIZE:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise RotationUnknown("the permit is not one of ours", advice="ask for a new one")
        return body

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._mac_key, body, "sha256")

    def _secret(self, body: bytes) -> bytes:
        return hmac.digest(self._secret_key, body, "sha256")
