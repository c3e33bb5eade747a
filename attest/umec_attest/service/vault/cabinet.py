"""Secrets at rest: encrypted under a key that lies with the keys of the service, so a database tells none of them."""

import json
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from umec_attest.service.errors import SecretUnreadable

__all__ = ["KEY_SIZE", "Cabinet"]

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
"""Bytes; drawn at random, so that one key is good for 2^32 writings (NIST SP 800-38D, 8.3)."""


class Cabinet:
    """Encrypts secrets with AES-256-GCM, each bound to its place: moved to another row, it opens no more."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError("the key of secrets has 32 bytes")
        self._cipher = AESGCM(key)

    def lock(self, secret: bytes, *, node: str, name: str, version: int, ek_sha256: str) -> bytes:
        """Return what is kept of a secret."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, secret, _place(node, name, version, ek_sha256))

    def unlock(self, kept: bytes, *, node: str, name: str, version: int, ek_sha256: str) -> bytes:
        """Return a secret; raises `SecretUnreadable` where it is another key, or another place."""
        try:
            return self._cipher.decrypt(kept[:NONCE_SIZE], kept[NONCE_SIZE:], _place(node, name, version, ek_sha256))
        except InvalidTag:
            raise SecretUnreadable(
                f"what is kept as {name} of {node} was not written here", advice="restore secrets.key, or set it again"
            ) from None


def _place(node: str, name: str, version: int, ek_sha256: str) -> bytes:
    return json.dumps([node, name, version, ek_sha256]).encode()
