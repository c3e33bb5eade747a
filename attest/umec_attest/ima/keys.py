"""Public keys whose signatures a runtime policy believes, or revokes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import ExtensionNotFound, SubjectKeyIdentifier, load_pem_x509_certificate

from umec_attest.errors import ReferenceInvalid

__all__ = ["KEY_ID_SIZE", "SigningKey", "parse_signing_key", "unambiguous"]

KEY_ID_SIZE: Final = 4
"""Bytes of a key identifier in a signature of IMA: the last ones of the subject key identifier."""
MAX_PEM: Final = 16 * 1024
MIN_RSA_BITS: Final = 2048
MIN_RSA_EXPONENT: Final = 65537
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1", "secp256k1"})

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as the policy gives it (`pem`: a public key or a certificate), and the identifiers it goes by."""

    pem: str
    key: PublicKey
    ids: frozenset[bytes]


def parse_signing_key(pem: str) -> SigningKey:
    """Return the key of a PEM public key or certificate; `ReferenceInvalid` where there is none, or a weak one.

    A certificate's dates are not judged, as the kernel does not; whoever signs the policy vouches for the key.
    """
    if len(pem) > MAX_PEM or pem.count("-----BEGIN ") != 1:
        raise ReferenceInvalid("a key is one public key or certificate in PEM")
    identifiers = set()
    key: object
    try:
        if "-----BEGIN CERTIFICATE-----" in pem:
            certificate = load_pem_x509_certificate(pem.encode())
            key = certificate.public_key()
            try:
                stated = certificate.extensions.get_extension_for_class(SubjectKeyIdentifier).value.digest
                identifiers.add(stated[-KEY_ID_SIZE:])
            except ExtensionNotFound:
                pass
        else:
            key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ReferenceInvalid(f"a key that is no public key or certificate in PEM: {error}"[:200]) from None
    if not isinstance(key, PublicKey) or not _strong(key):
        raise ReferenceInvalid(f"a key for runtime signatures is RSA of {MIN_RSA_BITS} bits, or on a known curve")
    identifiers.add(SubjectKeyIdentifier.from_public_key(key).digest[-KEY_ID_SIZE:])
    return SigningKey(pem, key, frozenset(identifiers))


def _strong(key: PublicKey) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS and key.public_numbers().e >= MIN_RSA_EXPONENT
    return key.curve.name in _CURVES


def unambiguous(keys: Sequence[SigningKey]) -> dict[bytes, SigningKey]:
    """Return the keys by identifier; `ReferenceInvalid` where two share one: a signature names no more than that."""
    found: dict[bytes, SigningKey] = {}
    for key in keys:
        for identifier in key.ids:
            if identifier in found:
                raise ReferenceInvalid(f"two keys go by the identifier {identifier.hex()}, or one is listed twice")
            found[identifier] = key
    return found
