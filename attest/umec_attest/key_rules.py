"""Rules that keys of a TPM have in common, by their public areas (TPM 2.0 Part 2, 8.3 and 12.2)."""

from typing import Final

from cryptography.hazmat.primitives import serialization

from umec_attest.errors import AttestError
from umec_attest.tpm.algorithms import SIGNING_HASHES
from umec_attest.tpm.public import Attributes, Public
from umec_attest.tpm.signature import Scheme
from umec_attest.tpm.verify import check_key_strength
from umec_attest.tpm.weakness import refuse_roca

__all__ = ["ORIGIN", "check_attestation_key", "check_signing_key", "spki_of"]

ORIGIN: Final = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN
"""Made inside this TPM, and never anywhere else."""

_AUTHORISATION: Final = Attributes.USER_WITH_AUTH | Attributes.ADMIN_WITH_POLICY | Attributes.NO_DA
"""How its owner unlocks a key: of no concern to a verifier."""


def check_signing_key(public: Public, required: Attributes, error: type[AttestError]) -> None:
    """Check that a key has these attributes and no others, a SHA-2 Name, and can only sign.

    Errors: `error`; `KeyWeak`.
    """
    missing, forbidden = required & ~public.attributes, public.attributes & ~required & ~_AUTHORISATION
    if missing or forbidden:
        raise error(f"object attributes: missing {missing!r}, forbidden {forbidden!r}")
    if public.name_algorithm not in SIGNING_HASHES:
        raise error(f"the Name must use SHA-2, not {public.name_algorithm.label}")
    if public.parameters.symmetric is not None:
        raise error("a signing key has no symmetric algorithm")
    refuse_roca(check_key_strength(public))


def check_attestation_key(public: Public, error: type[AttestError]) -> Public:
    """Check that a key signs nothing but what its own TPM says, and return it.

    Errors: `error`; `KeyWeak`.
    """
    check_signing_key(public, ORIGIN | Attributes.RESTRICTED | Attributes.SIGN, error)
    scheme = public.parameters.scheme
    if scheme is None or scheme.algorithm not in set(Scheme) or scheme.hash_algorithm not in SIGNING_HASHES:
        raise error("an attestation key is bound to RSASSA, RSAPSS or ECDSA with a SHA-2 hash")
    return public


def spki_of(public: Public) -> bytes:
    """Return the DER of the key's SubjectPublicKeyInfo: how certificates, tickets and allow-lists name it."""
    return public.key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
