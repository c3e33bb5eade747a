"""Keys of simulated TPMs, in this process: on P-256 each its own; RSA, which takes long to make, from a small pool."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from umec_attest.testing.fleet import structures

__all__ = ["Keys", "make_keys"]

RSA_POOL: Final = 4
"""RSA keys for all nodes of a process: a verifier neither asks nor sees that an AK has a twin."""
COORDINATE: Final = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """What a TPM would hold: `sign` returns a TPMT_SIGNATURE of the AK; the public areas are TPMT_PUBLIC."""

    ek_public: bytes
    ak_public: bytes
    node_key_public: bytes
    sign: Callable[[bytes], bytes] = field(repr=False)


def make_keys(number: int = 0, *, rsa_ak: bool = False) -> Keys:
    """Return the keys of a node; of an RSA AK, `number` says which of the pool."""
    ak_public, sign = _rsa_ak(number % RSA_POOL) if rsa_ak else _ecc_ak()
    return Keys(
        ek_public=structures.ek_public(*_coordinates(ec.generate_private_key(ec.SECP256R1()))),
        ak_public=ak_public,
        node_key_public=structures.ecc_public(
            *_coordinates(ec.generate_private_key(ec.SECP256R1())), structures.NODE_KEY_ATTRIBUTES
        ),
        sign=sign,
    )


def _ecc_ak() -> tuple[bytes, Callable[[bytes], bytes]]:
    key = ec.generate_private_key(ec.SECP256R1())

    def sign(message: bytes) -> bytes:
        return structures.ecdsa_signature(*decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256()))))

    return structures.ecc_public(*_coordinates(key), structures.AK_ATTRIBUTES), sign


def _rsa_ak(number: int) -> tuple[bytes, Callable[[bytes], bytes]]:
    key = _rsa_key(number)

    def sign(message: bytes) -> bytes:
        return structures.rsa_signature(key.sign(message, padding.PKCS1v15(), hashes.SHA256()))

    modulus = key.public_key().public_numbers().n.to_bytes(key.key_size // 8, "big")
    return structures.rsa_public(modulus, structures.AK_ATTRIBUTES), sign


@lru_cache(maxsize=RSA_POOL)
def _rsa_key(number: int) -> rsa.RSAPrivateKey:  # noqa: ARG001 - one key for each number
    return rsa.generate_private_key(65537, 2048)


def _coordinates(key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(COORDINATE, "big"), numbers.y.to_bytes(COORDINATE, "big")
