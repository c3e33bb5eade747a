"""RSA keys that a flawed library made (CVE-2017-15361, "ROCA"), recognised by their modulus."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from umec_attest.errors import KeyWeak
from umec_attest.tpm.public import PublicKey

__all__ = ["refuse_roca"]


def _subgroup(prime: int) -> frozenset[int]:
    return frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1))


_SUBGROUPS: Final = {
    prime: _subgroup(prime) for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}
"""The primes modulo which 65537 does not generate everything; by chance, one good modulus in 2^27 passes all."""


def refuse_roca(key: PublicKey) -> None:
    """Raise `KeyWeak` for an RSA modulus that is a power of 65537 modulo each of these primes."""
    if not isinstance(key, rsa.RSAPublicKey):
        return
    modulus = key.public_numbers().n
    if all(modulus % prime in subgroup for prime, subgroup in _SUBGROUPS.items()):
        raise KeyWeak("the modulus has the structure of CVE-2017-15361 (ROCA)")
