"""Which keys of a TPM a node may be enrolled with: endorsement key, attestation key, node key.

1  EK         follows a template of the EK credential profile; somebody vouches for it: a certificate path, an
              allow-list, or the identity that the device's maker gave it (`device_identity`)
2  AK         restricted signing key that never leaves its TPM; its Name goes into MakeCredential
3  node key   P-256 signing key that never leaves its TPM, certified by the AK for this very enrolment
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from umec_attest.certification import verify_certification
from umec_attest.device_identity import DeviceIdentity, bind_to_ek
from umec_attest.ek_certificate import EkPolicy, TpmModel, verify_ek_certificate
from umec_attest.errors import AkAttributes, EkProfile, EkTrustMissing, NodeKeyAttributes
from umec_attest.key_rules import ORIGIN, check_attestation_key, check_signing_key, spki_of
from umec_attest.tpm.algorithms import ALG_AES, ALG_CFB, HashAlgorithm
from umec_attest.tpm.names import Hierarchy
from umec_attest.tpm.public import Attributes, EccParameters, Public, RsaParameters, Symmetric
from umec_attest.tpm.signature import Scheme
from umec_attest.tpm.verify import check_key_strength
from umec_attest.tpm.weakness import refuse_roca

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

_EK_ATTRIBUTES: Final = ORIGIN | Attributes.ADMIN_WITH_POLICY | Attributes.RESTRICTED | Attributes.DECRYPT

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
    endorsed_by: Literal["certificate", "allow-list", "device-identity"]
    model: TpmModel | None = None
    """What its certificate says about the TPM."""


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A node key of which a known AK says that it lives in its TPM. Only `verify_certify` makes one."""

    public: Public
    name: bytes


def ek_sha256(public: Public) -> str:
    """Return the SHA-256 (hex) of the key's SubjectPublicKeyInfo: how tickets and allow-lists name an EK."""
    return hashlib.sha256(spki_of(public)).hexdigest()


def check_ek(
    *,
    public: Public,
    certificate: bytes | None,
    chain: Sequence[bytes],
    policy: EkPolicy,
    now: datetime,
    allow_list: frozenset[str] = frozenset(),
    device: DeviceIdentity | None = None,
) -> EndorsedKey:
    """Check an endorsement key (1).

    `certificate` and `chain` are DER; one that is shown must be good. `allow_list` holds `ek_sha256` values, and is
    asked only for a TPM that has no certificate, as is `device`: who relies on it has to see its IAK certify an AK
    below this EK (`verify_ak_by_iak`). Errors: `EkProfile`, `KeyWeak`, `EkCertificate…`, `EkMakerRefused`,
    `DeviceIdentityMismatch`, `EkTrustMissing`.
    """
    _check_template(public)  # 1a
    refuse_roca(check_key_strength(public))  # 1b
    fingerprint = ek_sha256(public)
    if certificate is not None:
        shown = verify_ek_certificate(certificate, chain, spki=spki_of(public), policy=policy, now=now)  # 1c
        if device is not None:
            bind_to_ek(device, shown)
        return EndorsedKey(public, fingerprint, "certificate", shown.model)
    if fingerprint in allow_list:
        return EndorsedKey(public, fingerprint, "allow-list")
    if device is not None:
        return EndorsedKey(public, fingerprint, "device-identity")
    raise EkTrustMissing(
        "the TPM shows no EK certificate, and its endorsement key is not on the allow-list",
        advice=f"If this TPM is to be trusted, allow the endorsement key {fingerprint}.",
    )


def check_ak(public: Public) -> Public:
    """Check that a key signs nothing but what its own TPM says (2).

    Errors: `AkAttributes`, `KeyWeak`.
    """
    return check_attestation_key(public, AkAttributes)


def check_node_key(public: Public) -> Public:
    """Check that a key can sign ES256 for the node, and never leaves its TPM (3a).

    Errors: `NodeKeyAttributes`, `KeyWeak`.
    """
    check_signing_key(public, ORIGIN | Attributes.SIGN, NodeKeyAttributes)
    parameters = public.parameters
    if not isinstance(parameters, EccParameters) or parameters.curve != _P256:
        raise NodeKeyAttributes("a node key is on P-256")
    scheme = parameters.scheme
    if scheme is not None and (scheme.algorithm, scheme.hash_algorithm) != (Scheme.ECDSA, _SHA256):
        raise NodeKeyAttributes("a node key signs by ECDSA with SHA-256")
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
    check_node_key(node_key)
    verify_certification(
        attest=attest,
        signature=signature,
        signer=ak,
        signer_parent=ak_parent,
        subject=node_key,
        subject_parent=None,
        qualifying=qualifying,
    )
    return CertifiedKey(node_key, node_key.name())


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
