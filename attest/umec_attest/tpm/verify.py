"""Verification of a TPM's signature: which keys, schemes and hashes are good enough, and the check itself."""

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from umec_attest.errors import KeyWeak, SignatureInvalid, SignatureSchemeRefused
from umec_attest.tpm.algorithms import SIGNING_HASHES
from umec_attest.tpm.public import Public
from umec_attest.tpm.signature import EcdsaSignature, RsaSignature, Scheme, Signature

__all__ = ["check_key_strength", "verify_signature"]

_MIN_RSA_BITS: Final = 2048
_EXPONENT: Final = 65537
_CURVES: Final = frozenset({"secp256r1", "secp384r1"})


def check_key_strength(public: Public) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Return the key if it is RSA of at least 2048 bits with e = 65537, or on P-256 or P-384; else `KeyWeak`."""
    key = public.key()
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        if key.key_size < _MIN_RSA_BITS or exponent != _EXPONENT:
            raise KeyWeak(f"RSA with {key.key_size} bits, e = {exponent}; at least {_MIN_RSA_BITS}, {_EXPONENT} needed")
    elif key.curve.name not in _CURVES:
        raise KeyWeak(f"an ECC key must be on P-256 or P-384, not on {key.curve.name}")
    return key


def verify_signature(public: Public, signature: Signature, message: bytes) -> None:
    """Return if `signature` is by `public` over `message`.

    Errors: `KeyWeak`; `SignatureSchemeRefused` if the scheme is not the key's own, does not fit its type, or uses
    another hash than SHA-256, SHA-384 and SHA-512; `SignatureInvalid`.
    """
    key = check_key_strength(public)
    _check_scheme(public, signature)
    hash_algorithm = SIGNING_HASHES[signature.hash_algorithm]
    try:
        if isinstance(key, rsa.RSAPublicKey) and isinstance(signature, RsaSignature):
            # 3c. A TPM salts with as many bytes as the digest has; another length is not by a TPM of that scheme.
            pad = (
                padding.PKCS1v15()
                if signature.scheme is Scheme.RSASSA
                else padding.PSS(padding.MGF1(hash_algorithm), padding.PSS.DIGEST_LENGTH)
            )
            key.verify(signature.value, message, pad, hash_algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(signature, EcdsaSignature):
            key.verify(_dss(signature), message, ec.ECDSA(hash_algorithm))
        else:
            raise SignatureSchemeRefused("an RSA scheme needs an RSA key, ECDSA an ECC key")
    except InvalidSignature:
        raise SignatureInvalid("the signature does not verify under the expected key") from None


def _check_scheme(public: Public, signature: Signature) -> None:
    if signature.hash_algorithm not in SIGNING_HASHES:
        raise SignatureSchemeRefused(f"{signature.hash_algorithm.label} is not an allowed signature hash")
    scheme = public.parameters.scheme
    used = signature.scheme if isinstance(signature, RsaSignature) else Scheme.ECDSA
    if scheme is not None and (scheme.algorithm, scheme.hash_algorithm) != (used, signature.hash_algorithm):
        raise SignatureSchemeRefused("the signature uses another scheme than the key is bound to")


def _dss(signature: EcdsaSignature) -> bytes:
    """Return r and s in DER; whether they are below the order of the curve is the first step of verification."""
    r, s = int.from_bytes(signature.r, "big"), int.from_bytes(signature.s, "big")
    return encode_dss_signature(r, s)
