"""Algorithm identifiers (TPM 2.0 Part 2, 6.3) and what we need to know of each."""

import hashlib
from collections.abc import Callable
from enum import IntEnum, unique
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "ALG_AES",
    "ALG_CFB",
    "ALG_ECC",
    "ALG_NULL",
    "ALG_RSA",
    "CURVES",
    "MAX_DIGEST_SIZE",
    "SIGNING_HASHES",
    "HashAlgorithm",
]

ALG_RSA: Final = 0x0001
ALG_AES: Final = 0x0006
ALG_NULL: Final = 0x0010
ALG_ECC: Final = 0x0023
ALG_CFB: Final = 0x0043

MAX_DIGEST_SIZE: Final = 64
"""SHA-512 is the largest hash of a TPM."""

CURVES: Final[dict[int, ec.EllipticCurve]] = {
    0x0003: ec.SECP256R1(),
    0x0004: ec.SECP384R1(),
    0x0005: ec.SECP521R1(),
}
"""TPM_ECC_CURVE (Part 2, 6.4) for the NIST curves."""


@unique
class HashAlgorithm(IntEnum):
    """A hash of a PCR bank, a Name or a signature."""

    SHA1 = 0x0004
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    SM3_256 = 0x0012
    SHA3_256 = 0x0027
    SHA3_384 = 0x0028
    SHA3_512 = 0x0029

    @property
    def label(self) -> str:
        """The name as DESIGN and JSON write it: "sha256"."""
        return _LABELS[self]

    @property
    def digest_size(self) -> int:
        """Size of a digest in bytes."""
        return _SIZES[self]

    @property
    def constructor(self) -> "Callable[[bytes], hashlib._Hash]":
        """What makes a hash object of bytes: for loops, in which looking it up each time would cost as much."""
        return _HASHES[self]

    def digest(self, data: bytes) -> bytes:
        """Hash `data`.

        Errors: `ValueError` for SM3, which not every OpenSSL has.
        """
        return _HASHES[self](data).digest()

    @classmethod
    def from_label(cls, label: str) -> "HashAlgorithm":
        """Return the algorithm of a label such as "sha256"; `KeyError` if there is none."""
        return _BY_LABEL[label]


_SIZES: Final = {
    HashAlgorithm.SHA1: 20,
    HashAlgorithm.SHA256: 32,
    HashAlgorithm.SHA384: 48,
    HashAlgorithm.SHA512: 64,
    HashAlgorithm.SM3_256: 32,
    HashAlgorithm.SHA3_256: 32,
    HashAlgorithm.SHA3_384: 48,
    HashAlgorithm.SHA3_512: 64,
}
_LABELS: Final = {member: member.name.lower() for member in HashAlgorithm}
_BY_LABEL: Final = {label: member for member, label in _LABELS.items()}


def _sm3(data: bytes) -> "hashlib._Hash":
    return hashlib.new("sm3", data)


_HASHES: Final[dict[HashAlgorithm, Callable[[bytes], "hashlib._Hash"]]] = {
    HashAlgorithm.SHA1: hashlib.sha1,  # old logs are replayed with it, and never believed
    HashAlgorithm.SHA256: hashlib.sha256,
    HashAlgorithm.SHA384: hashlib.sha384,
    HashAlgorithm.SHA512: hashlib.sha512,
    HashAlgorithm.SM3_256: _sm3,
    HashAlgorithm.SHA3_256: hashlib.sha3_256,
    HashAlgorithm.SHA3_384: hashlib.sha3_384,
    HashAlgorithm.SHA3_512: hashlib.sha3_512,
}

SIGNING_HASHES: Final[dict[HashAlgorithm, hashes.HashAlgorithm]] = {
    HashAlgorithm.SHA256: hashes.SHA256(),
    HashAlgorithm.SHA384: hashes.SHA384(),
    HashAlgorithm.SHA512: hashes.SHA512(),
}
"""Hashes that a signature, a Name or a PCR bank that we believe may use. SHA-1 is not among them, and never will be."""
