"""Which keys of a TPM a node may be enrolled with: endorsement key, attestation key, node key.

1  EK         follows a template of the EK credential profile; a certificate path or an allow-list vouches for it
2  AK         restricted signing key that never leaves its TPM; its Name goes into MakeCredential
3  node key   P-256 signing key that never leaves its TPM, certified by the AK for this very enrolment
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from umec_attest.ek_certificate import verify_ek_certificate
from umec_attest.errors import (
    AkAttributes,
    AttestError,
    CertifyNameMismatch,
    CertifyNonceMismatch,
    CertifyTypeMismatch,
    EkProfile,
    EkTrustMissing,
    KeyWeak,
    NodeKeyAttributes,
)
from umec_attest.tpm.algorithms import ALG_AES, ALG_CFB, SIGNING_HASHES, HashAlgorithm
from umec_attest.tpm.attest import Certified, parse_attest
from umec_attest.tpm.names import Hierarchy, signer_name
from umec_attest.tpm.public import Attributes, EccParameters, Public, RsaParameters, Symmetric
from umec_attest.tpm.signature import Scheme, parse_signature
from umec_attest.tpm.verify import check_key_strength, verify_signature

__all__ = [
    "CertifiedKey",
    "EndorsedKey",
    "check_ak",
    "check_ek",
    "check_node_key",
    "ek_sha256",
    "verify_certify",
]

_P256: Final = 0x0003
_P384: Final = 0x0004

_ORIGIN: Final = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN
"""Made inside this TPM, and never anywhere else."""
_AUTHORISATION: Final = Attributes.USER_WITH_AUTH | Attributes.ADMIN_WITH_POLICY | Attributes.NO_DA
"""How its owner unlocks a key: of no concern to a verifier."""
_EK_ATTRIBUTES: Final = _ORIGIN | Attributes.ADMIN_WITH_POLICY | Attributes.RESTRICTED | Attributes.DECRYPT

_POLICY_A: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_POLICY_B_SHA256: Final = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
_POLICY_B_SHA384: Final = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
_AES_128: Final = Symmetric(ALG_AES, 128, ALG_CFB)
_AES_256: Final = Symmetric(ALG_AES, 256, ALG_CFB)


@dataclass(frozen=True, slots=True)
class _Template:
    """A template of the EK credential profile (B.3, B.4), without the key itself."""

    name_algorithm: HashAlgorithm
    attributes: Attributes
    auth_policy: bytes
    symmetric: Symmetric | None
    key: tuple[str, int]


_SHA256, _SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
_HIGH: Final = _EK_ATTRIBUTES | Attributes.USER_WITH_AUTH
_TEMPLATES: Final = frozenset(
    {
        _Template(_SHA256, _EK_ATTRIBUTES, _POLICY_A, _AES_128, ("rsa", 2048)),  # L-1
        _Template(_SHA256, _EK_ATTRIBUTES, _POLICY_A, _AES_128, ("ecc", _P256)),  # L-2
        _Template(_SHA256, _HIGH, _POLICY_B_SHA256, _AES_128, ("rsa", 2048)),  # H-1
        _Template(_SHA256, _HIGH, _POLICY_B_SHA256, _AES_128, ("ecc", _P256)),  # H-2
        _Template(_SHA384, _HIGH, _POLICY_B_SHA384, _AES_256, ("ecc", _P384)),  # H-3
    }
)


@dataclass(frozen=True, slots=True)
class EndorsedKey:
    """An endorsement key that somebody vouches for. Only `check_ek` makes one."""

    public: Public
    sha256: str
    endorsed_by: Literal["certificate", "allow-list"]


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A node key of which a known AK says that it lives in its TPM. Only `verify_certify` makes one."""

    public: Public
    name: bytes


def ek_sha256(public: Public) -> str:
    """Return the SHA-256 (hex) of the key's SubjectPublicKeyInfo: how tickets and allow-lists name an EK."""
    return hashlib.sha256(_spki(public)).hexdigest()


def check_ek(
    *,
    public: Public,
    certificate: bytes | None,
    chain: Sequence[bytes],
    roots: Sequence[x509.Certificate],
    now: datetime,
    allow_list: frozenset[str] = frozenset(),
) -> EndorsedKey:
    """Check an endorsement key (1).

    `certificate` and `chain` are DER; `allow_list` holds `ek_sha256` values, and is asked only for a TPM that has no
    certificate: one that is shown must be good. Errors: `EkProfile`, `KeyWeak`, `EkCertificate…`, `EkTrustMissing`.
    """
    _check_template(public)  # 1a
    key = check_key_strength(public)
    if isinstance(key, rsa.RSAPublicKey):
        _refuse_roca(key)  # 1b
    fingerprint = ek_sha256(public)
    if certificate is not None:
        verify_ek_certificate(certificate, chain, spki=_spki(public), roots=roots, now=now)  # 1c
        return EndorsedKey(public, fingerprint, "certificate")
    if fingerprint not in allow_list:
        raise EkTrustMissing(
            "the TPM shows no EK certificate, and its endorsement key is not on the allow-list",
            advice=f"If this TPM is to be trusted, allow the endorsement key {fingerprint}.",
        )
    return EndorsedKey(public, fingerprint, "allow-list")


def check_ak(public: Public) -> Public:
    """Check that a key signs nothing but what its own TPM says (2).

    Errors: `AkAttributes`, `KeyWeak`.
    """
    required = _ORIGIN | Attributes.RESTRICTED | Attributes.SIGN
    _check_attributes(public, required, AkAttributes)
    check_key_strength(public)
    scheme = public.parameters.scheme
    if scheme is None or scheme.algorithm not in set(Scheme) or scheme.hash_algorithm not in SIGNING_HASHES:
        raise AkAttributes("an attestation key is bound to RSASSA, RSAPSS or ECDSA with a SHA-2 hash")
    return public


def check_node_key(public: Public) -> Public:
    """Check that a key can sign ES256 for the node, and never leaves its TPM (3a).

    Errors: `NodeKeyAttributes`, `KeyWeak`.
    """
    _check_attributes(public, _ORIGIN | Attributes.SIGN, NodeKeyAttributes)
    parameters = public.parameters
    if not isinstance(parameters, EccParameters) or parameters.curve != _P256:
        raise NodeKeyAttributes("a node key is on P-256")
    scheme = parameters.scheme
    if scheme is not None and (scheme.algorithm, scheme.hash_algorithm) != (Scheme.ECDSA, _SHA256):
        raise NodeKeyAttributes("a node key signs by ECDSA with SHA-256")
    check_key_strength(public)
    return public


def verify_certify(
    *,
    attest: bytes,
    signature: bytes,
    ak: Public,
    ak_parent: Public | bytes | Hierarchy,
    node_key: Public,
    qualifying: bytes,
) -> CertifiedKey:
    """Verify the AK's TPM2_Certify of the node key (3b).

    `attest` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE; `qualifying` is what this enrolment demands in extraData.
    The Qualified Name of the node key is not compared: its attributes bind it to the TPM, under whichever parent.
    Errors: `TpmInvalid`, `Certify…`, `NodeKeyAttributes`, `SignatureRefused`.
    """
    parsed, parsed_signature = parse_attest(attest), parse_signature(signature)
    if not isinstance(parsed.attested, Certified):
        raise CertifyTypeMismatch("the TPM signed something else than the certification of a key")
    if not qualifying or not hmac.compare_digest(parsed.extra_data, qualifying):
        raise CertifyNonceMismatch("the certification answers another enrolment")
    if parsed.qualified_signer != signer_name(ak, ak_parent):
        raise CertifyNameMismatch("the certification is by another key than the attestation key under its parent")
    check_node_key(node_key)
    if not hmac.compare_digest(parsed.attested.name, node_key.name()):
        raise CertifyNameMismatch("the certification is about another key")
    verify_signature(ak, parsed_signature, attest)
    return CertifiedKey(node_key, node_key.name())


def _check_attributes(public: Public, required: Attributes, error: type[AttestError]) -> None:
    missing, forbidden = required & ~public.attributes, public.attributes & ~required & ~_AUTHORISATION
    if missing or forbidden:
        raise error(f"object attributes: missing {missing!r}, forbidden {forbidden!r}")
    if public.name_algorithm not in SIGNING_HASHES:
        raise error(f"the Name must use SHA-2, not {public.name_algorithm.label}")
    if public.parameters.symmetric is not None:
        raise error("a signing key has no symmetric algorithm")


def _check_template(public: Public) -> None:
    parameters = public.parameters
    if isinstance(parameters, RsaParameters):
        key, exact = ("rsa", parameters.key_bits), parameters.exponent == 0
    else:
        key, exact = ("ecc", parameters.curve), parameters.kdf is None
    if parameters.scheme is not None or not exact:
        raise EkProfile("an endorsement key is a storage key without a scheme")
    found = _Template(public.name_algorithm, public.attributes, public.auth_policy, parameters.symmetric, key)
    if found not in _TEMPLATES:
        raise EkProfile("the endorsement key follows no template of the EK credential profile that we know")


def _spki(public: Public) -> bytes:
    return public.key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _refuse_roca(key: rsa.RSAPublicKey) -> None:
    """1b. CVE-2017-15361: moduli of weak primes lie in the subgroup of 65537 modulo each of these primes."""
    modulus = key.public_numbers().n
    if all(modulus % prime in subgroup for prime, subgroup in _ROCA_SUBGROUPS.items()):
        raise KeyWeak("the modulus has the structure of CVE-2017-15361 (ROCA)")


def _subgroup(prime: int) -> frozenset[int]:
    return frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1))


_ROCA_SUBGROUPS: Final = {
    prime: _subgroup(prime) for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}
