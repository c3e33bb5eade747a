"""Signatures (TPM 2.0 Part 2, 11.3.4: TPMT_SIGNATURE) of the schemes RSASSA, RSAPSS and ECDSA."""

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.wire import Reader, sized, u16

__all__ = ["EcdsaSignature", "RsaSignature", "Scheme", "Signature", "parse_signature"]

_MAX_RSA_SIZE: Final = 512
"""RSA-4096, the largest key of a TPM."""

_MAX_ECC_SIZE: Final = 66
"""P-521, the largest curve of a TPM."""


@unique
class Scheme(IntEnum):
    """TPMI_ALG_SIG_SCHEME: the schemes that this verifier knows."""

    RSASSA = 0x0014
    RSAPSS = 0x0016
    ECDSA = 0x0018


@dataclass(frozen=True, slots=True)
class RsaSignature:
    """TPMS_SIGNATURE_RSA."""

    scheme: Scheme
    hash_algorithm: HashAlgorithm
    value: bytes

    def to_bytes(self) -> bytes:
        """Return the TPMT_SIGNATURE."""
        return u16(self.scheme) + u16(self.hash_algorithm) + sized(self.value)


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """TPMS_SIGNATURE_ECC; r and s as the TPM wrote them, big-endian."""

    hash_algorithm: HashAlgorithm
    r: bytes
    s: bytes

    def to_bytes(self) -> bytes:
        """Return the TPMT_SIGNATURE."""
        return u16(Scheme.ECDSA) + u16(self.hash_algorithm) + sized(self.r) + sized(self.s)


Signature = RsaSignature | EcdsaSignature


def parse_signature(data: bytes) -> Signature:
    """Parse a TPMT_SIGNATURE.

    Errors: `TpmInvalid` for another scheme (HMAC and NULL among them), an unknown hash, a size out of bounds, a
    truncated or a longer structure.
    """
    reader = Reader(data, what="TPMT_SIGNATURE")
    scheme, hash_algorithm = _read_scheme(reader), _read_hash(reader)
    signature: Signature
    if scheme is Scheme.ECDSA:
        signature = EcdsaSignature(hash_algorithm, reader.sized(_MAX_ECC_SIZE), reader.sized(_MAX_ECC_SIZE))
    else:
        signature = RsaSignature(scheme, hash_algorithm, reader.sized(_MAX_RSA_SIZE))
    reader.finish()
    return signature


def _read_scheme(reader: Reader) -> Scheme:
    identifier = reader.u16()
    try:
        return Scheme(identifier)
    except ValueError:
        raise reader.fail(f"signature scheme 0x{identifier:04x} is not RSASSA, RSAPSS or ECDSA") from None


def _read_hash(reader: Reader) -> HashAlgorithm:
    identifier = reader.u16()
    try:
        return HashAlgorithm(identifier)
    except ValueError:
        raise reader.fail(f"unknown hash 0x{identifier:04x}") from None
