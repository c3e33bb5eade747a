"""P-256 keys of a TPM, and their signatures."""

from typing import Final

from tpm2_pytss.constants import TPM2_ALG, TPM2_ECC, TPMA_OBJECT
from tpm2_pytss.types import (
    TPMS_ECC_PARMS,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMT_TK_HASHCHECK,
    TPMU_ASYM_SCHEME,
    TPMU_PUBLIC_PARMS,
)

__all__ = ["KEY_ATTRIBUTES", "bound_template", "jose", "no_ticket", "null_scheme", "p256_template"]

P256_BYTES: Final = 32

KEY_ATTRIBUTES: Final = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
    | TPMA_OBJECT.SIGN_ENCRYPT
)
"""No dictionary attack protection (the keys have no password): with it, each power cut would count as an attack."""


def p256_template(attributes: TPMA_OBJECT) -> TPMT_PUBLIC:
    """Return the public area of an ECDSA key on P-256 that is to be made."""
    scheme = TPMT_ECC_SCHEME(scheme=TPM2_ALG.ECDSA, details=TPMU_ASYM_SCHEME())
    scheme.details.ecdsa.hashAlg = TPM2_ALG.SHA256
    return TPMT_PUBLIC(
        type=TPM2_ALG.ECC,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=attributes,
        parameters=TPMU_PUBLIC_PARMS(
            eccDetail=TPMS_ECC_PARMS(
                symmetric=TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
                scheme=scheme,
                curveID=TPM2_ECC.NIST_P256,
                kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
            )
        ),
    )


def bound_template(policy: bytes) -> TPMT_PUBLIC:
    """Return the public area of a key that signs by this policy (32 bytes) alone.

    Without userWithAuth its password, which is empty, signs nothing. Without adminWithPolicy that password lets the AK
    certify the key (TPM2_Certify) in any state: that it lives here is no secret, and says nothing in its name.
    """
    template = p256_template(KEY_ATTRIBUTES & ~TPMA_OBJECT.USERWITHAUTH)
    template.authPolicy = policy
    return template


def null_scheme() -> TPMT_SIG_SCHEME:
    """Return that the key's own scheme is to be used."""
    return TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)


def no_ticket() -> TPMT_TK_HASHCHECK:
    """Unrestricted keys sign a digest without proof of where it comes from."""
    return TPMT_TK_HASHCHECK(tag=0x8024, hierarchy=0x40000007)


def jose(signature: bytes) -> bytes:
    """Turn a TPMT_SIGNATURE with ECDSA (algorithm, hash, r, s; r and s with their sizes, zeros cut) into r||s."""
    size = int.from_bytes(signature[4:6], "big")
    r, s = signature[6 : 6 + size], signature[6 + size + 2 :]
    return r.rjust(P256_BYTES, b"\0") + s.rjust(P256_BYTES, b"\0")
