"""Certificates of endorsement keys (TCG EK Credential Profile for TPM 2.0, 3; RFC 5280, 6).

1  the certificate is about the key that the TPM showed
2  its path leads to a configured root: `certificates.path`, for the purpose 2.23.133.8.1
3  its key usage is that of a decryption key of its type, and of nothing else
4  it names maker, model and version of the TPM; a maker of software TPMs only where the policy says so

Some vendors' certificates are malformed. Whether they are read all the same is the policy's to say;
`certificates.der` tells which mistakes are mended, and that signatures are verified over the bytes as they came.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ObjectIdentifier

from umec_attest.certificates.certificate import Certificate, CertificateMalformed, load_certificate
from umec_attest.certificates.path import Profile, TrustStore, extension, verify_path
from umec_attest.errors import (
    EkCertificateExpired,
    EkCertificateInvalid,
    EkCertificateMalformed,
    EkCertificateMismatch,
    EkCertificatePath,
    EkMakerRefused,
)

__all__ = ["EkCertificate", "EkPolicy", "TpmModel", "verify_ek_certificate"]

_PROFILE: Final = Profile(
    purpose=ObjectIdentifier("2.23.133.8.1"),
    invalid=EkCertificateInvalid,
    expired=EkCertificateExpired,
    path=EkCertificatePath,
)

_MAX_CHAIN: Final = 8
"""Vendors use one to three intermediate certificates."""

_MANUFACTURER: Final = "6781050201"
_MODEL: Final = "6781050202"
_VERSION: Final = "6781050203"
"""2.23.133.2.1 to 3 in hex of their DER: attributes of the directory name among the alternative names."""
_MAKER: Final = re.compile(r"id:[0-9a-f]{8}")
"""TCG Vendor ID Registry: four characters in hexadecimal."""

_SOFTWARE_MAKERS: Final = {
    "id:00001014": "swtpm",
    "id:49424d00": "IBM's software TPM",
    "id:474f4f47": "a virtual TPM of Google",
    "id:564d5700": "a virtual TPM of VMware",
    "id:414d5a4e": "a virtual TPM of Amazon",
    "id:4d534654": "a virtual TPM of Microsoft (Hyper-V, Azure)",
}
"""TPMs whose secrets lie in the memory of a host: whoever owns that host is every node with such a TPM."""


@dataclass(frozen=True, slots=True)
class EkPolicy:
    """Whose word about an endorsement key counts.

    `tolerate_malformed` reads the certificates of vendors that are not DER; `software_tpms` is for tests and
    demonstrations, where no TPM is hardware.
    """

    store: TrustStore
    tolerate_malformed: bool = False
    software_tpms: bool = False


@dataclass(frozen=True, slots=True)
class TpmModel:
    """What a certificate says about a TPM: `maker` as in the registry ("id:53544d20"), all in lower case."""

    maker: str
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class EkCertificate:
    """A certificate that a configured root vouches for. Only `verify_ek_certificate` makes one."""

    certificate: Certificate
    model: TpmModel


def verify_ek_certificate(
    certificate: bytes, chain: Sequence[bytes], *, spki: bytes, policy: EkPolicy, now: datetime
) -> EkCertificate:
    """Return the certificate of an endorsement key if a root of the policy vouches for it at `now`.

    `certificate` and `chain` are DER, the chain in any order; `spki` is the SubjectPublicKeyInfo of the key that the
    TPM showed. Errors: `EkCertificateMalformed`, `EkCertificateInvalid`, `EkCertificateMismatch`,
    `EkCertificateExpired`, `EkCertificatePath`, `EkMakerRefused`.
    """
    if len(chain) > _MAX_CHAIN:
        raise EkCertificateInvalid(f"a chain of {len(chain)} certificates is beyond the limit of {_MAX_CHAIN}")
    leaf = _load(certificate, policy)
    if leaf.spki != spki:  # 1
        raise EkCertificateMismatch("the EK certificate is about another key")
    verify_path(leaf, [_load(der, policy) for der in chain], policy.store, profile=_PROFILE, now=now)  # 2
    _check_usage(leaf)  # 3
    return EkCertificate(leaf, _check_maker(_model(leaf), policy))  # 4


def _load(der: bytes, policy: EkPolicy) -> Certificate:
    try:
        return load_certificate(der, tolerate=policy.tolerate_malformed)
    except CertificateMalformed as error:
        advice = "A TPM of ST or Nuvoton may need the setting that tolerates malformed certificates."
        raise EkCertificateMalformed(str(error), advice=advice) from error


def _check_usage(leaf: Certificate) -> None:
    """3. RSA keys decrypt (key encipherment), ECC keys agree; neither signs anything."""
    usage = extension(leaf, x509.KeyUsage)
    if usage is None:
        raise EkCertificateInvalid("the certificate does not say what its key is for (key usage)")
    signs = usage.digital_signature or usage.content_commitment or usage.key_cert_sign or usage.crl_sign
    is_rsa = isinstance(leaf.fields.public_key(), rsa.RSAPublicKey)
    if signs or not (usage.key_encipherment if is_rsa else usage.key_agreement):
        raise EkCertificateInvalid("the key usage is not that of an endorsement key of its type")


def _model(leaf: Certificate) -> TpmModel:
    """4. Each attribute once: with two makers, none is the maker."""
    attributes = [pair for name in leaf.alternatives for rdn in name.rdns for pair in rdn]
    found = [[text for kind, text in attributes if kind == wanted] for wanted in (_MANUFACTURER, _MODEL, _VERSION)]
    if any(len(texts) != 1 for texts in found):
        raise EkCertificateInvalid("the certificate does not name maker, model and version of the TPM, each once")
    (maker,), (model,), (version,) = found
    if not _MAKER.fullmatch(maker):
        raise EkCertificateInvalid(f"the maker {maker!r} is not one of the TCG's registry (id:, eight hex digits)")
    return TpmModel(maker, model, version)


def _check_maker(model: TpmModel, policy: EkPolicy) -> TpmModel:
    software = _SOFTWARE_MAKERS.get(model.maker)
    if software is not None and not policy.software_tpms:
        raise EkMakerRefused(
            f"the TPM is {software}: it protects nothing from who owns its host",
            advice="Where that is meant, as in tests, the setting software_tpms admits it.",
        )
    return model
