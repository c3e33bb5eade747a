"""What comes out of a TPM: keys, statements, and values of PCRs."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import TPMT_PUBLIC, TPMT_TK_VERIFIED

from umec_attest.agent.errors import TpmRefused

__all__ = ["NAME_SHA256", "Attested", "EndorsementKey", "PcrQuote", "Remembered", "WrappedKey", "public_area"]

NAME_SHA256: Final = b"\x00\x0b"
"""TPM_ALG_SHA256, which a Name begins with."""


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """The EK: `public` is a TPMT_PUBLIC, `spki` its SubjectPublicKeyInfo, certificates are DER (None: it has none)."""

    public: bytes
    spki: bytes
    certificate: bytes | None
    chain: tuple[bytes, ...]

    @property
    def sha256(self) -> str:
        """The hex SHA-256 of the SubjectPublicKeyInfo, which a ticket names."""
        return hashlib.sha256(self.spki).hexdigest()


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key that only this TPM can use: `public` is a TPMT_PUBLIC, `private` the buffer of a TPM2B_PRIVATE."""

    public: bytes
    private: bytes

    @property
    def name(self) -> bytes:
        """The Name of the key, whose hash is SHA-256 in our templates (Part 1, 16)."""
        return NAME_SHA256 + hashlib.sha256(self.public).digest()

    @property
    def policy(self) -> bytes:
        """The digest of the policy by which it is used; empty where its password is enough."""
        return bytes(public_area(self.public).authPolicy)

    @property
    def spki(self) -> bytes:
        """Return the key's SubjectPublicKeyInfo in DER."""
        return bytes(public_area(self.public).to_der())


@dataclass(frozen=True, slots=True)
class Attested:
    """A statement of the TPM about itself: `attest` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PcrQuote:
    """A quote, and the values of the SHA-256 bank that it covers."""

    quote: Attested
    pcrs: Mapping[int, bytes]


@dataclass(slots=True)
class Remembered:
    """What a TPM need not be asked for again over the same connection.

    `tickets`: that it verified an owner's signature, by the bytes of that; `counter`: where the counter is.
    """

    tickets: dict[bytes, TPMT_TK_VERIFIED] = field(default_factory=dict)
    counter: ESYS_TR | None = None


def public_area(wire: bytes) -> TPMT_PUBLIC:
    """Return a TPMT_PUBLIC that was stored; raises `TpmRefused` for trailing bytes."""
    public, read = TPMT_PUBLIC.unmarshal(wire)
    if read != len(wire):
        raise TpmRefused("a stored public area has trailing bytes")
    return public
