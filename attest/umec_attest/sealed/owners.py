"""The owner of an image: whose key signs which states of it may open what was sealed for it."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from umec_attest.errors import ApprovalInvalid
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.public import Attributes, EccParameters, Public, RsaParameters, SchemeChoice
from umec_attest.tpm.signature import Scheme
from umec_attest.tpm.verify import check_key_strength

__all__ = ["MAX_OWNER", "OwnerKey", "OwnerPrivateKey", "load_owner", "owner_public"]

OwnerKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
OwnerPrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

MAX_OWNER: Final = 4096
"""Bytes of an owner's file; an RSA key of 16,384 bits in PEM has 2,800."""
_SHA256: Final = HashAlgorithm.SHA256
_CURVES: Final = {"secp256r1": 0x0003, "secp384r1": 0x0004}


def load_owner(pem: bytes) -> OwnerKey:
    """Return an owner's public key (RSA of 2048 bits or more, P-256, P-384). Errors: `ApprovalInvalid`, `KeyWeak`."""
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise ApprovalInvalid("the owner's file holds no public key in PEM") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ApprovalInvalid("an owner's key is RSA, or on P-256 or P-384")
    check_key_strength(owner_public(key))
    return key


def owner_public(key: OwnerKey) -> Public:
    """Return the owner's key as the TPM loads it: its Name is part of the policy of what is sealed.

    Errors: `ApprovalInvalid` for a curve that is neither P-256 nor P-384.
    """
    attributes = Attributes.SIGN | Attributes.USER_WITH_AUTH
    numbers = key.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
        exponent = 0 if numbers.e == 65537 else numbers.e
        scheme = SchemeChoice(Scheme.RSASSA, _SHA256)
        return Public(_SHA256, attributes, b"", RsaParameters(None, scheme, len(modulus) * 8, exponent, modulus))
    curve = _CURVES.get(numbers.curve.name)
    if curve is None:
        raise ApprovalInvalid(f"an owner's key is RSA, or on P-256 or P-384, not on {numbers.curve.name}")
    size = (numbers.curve.key_size + 7) // 8
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    scheme = SchemeChoice(Scheme.ECDSA, _SHA256)
    return Public(_SHA256, attributes, b"", EccParameters(None, scheme, curve, None, x, y))
