"""Path validation for EK certificates (RFC 5280, 6, and TCG EK Credential Profile 2.5, 3).

1  the certificate is about the key that the TPM showed
2  it is an end entity for endorsement keys: CA bit, EKU 2.23.133.8.1, key usage
3  each certificate is valid now, signed with SHA-2 by the next, and has no critical extension that we do not know
4  each issuer is a CA that may sign certificates, within its path length
5  the path ends at a configured root
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from umec_attest.errors import EkCertificateExpired, EkCertificateInvalid, EkCertificateMismatch, EkCertificatePath

__all__ = ["verify_ek_certificate"]

_Wanted = TypeVar("_Wanted", bound=x509.ExtensionType)

_EK_CERTIFICATE: Final = ObjectIdentifier("2.23.133.8.1")

_MAX_CHAIN: Final = 8
"""Vendors use one to three intermediate certificates."""
_MAX_CERTIFICATE_SIZE: Final = 8192
"""EK certificates must fit into the NV memory of a TPM; vendor CAs are below 3 KB."""

_HASHES: Final = frozenset({"sha256", "sha384", "sha512"})
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,  # names the TPM's model: information for the operator
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
"""Critical extensions that steps 2 to 4 check, or that restrict nothing here. Name constraints are not among them."""


def verify_ek_certificate(
    certificate: bytes, chain: Sequence[bytes], *, spki: bytes, roots: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate:
    """Return the certificate of an endorsement key if one of `roots` vouches for it at `now`.

    `certificate` and `chain` are DER, the chain in any order; `spki` is the SubjectPublicKeyInfo of the key that the
    TPM showed. Errors: `EkCertificateInvalid`, `EkCertificateMismatch`, `EkCertificateExpired`, `EkCertificatePath`.
    """
    if len(chain) > _MAX_CHAIN:
        raise EkCertificateInvalid(f"a chain of {len(chain)} certificates is beyond the limit of {_MAX_CHAIN}")
    leaf = _load(certificate)
    if _spki(leaf) != spki:  # 1
        raise EkCertificateMismatch("the EK certificate is about another key")
    _check_end_entity(leaf)  # 2
    _check_each(leaf, now)  # 3
    _climb(leaf, [_load(der) for der in chain], roots, now)  # 3, 4, 5
    return leaf


def _load(der: bytes) -> x509.Certificate:
    if len(der) > _MAX_CERTIFICATE_SIZE:
        raise EkCertificateInvalid(f"a certificate of {len(der)} bytes is beyond the limit of {_MAX_CERTIFICATE_SIZE}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key()
    except Exception as error:  # the parser of cryptography raises several kinds on hostile DER
        raise EkCertificateInvalid(f"not a certificate: {error}") from error
    return certificate


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_end_entity(leaf: x509.Certificate) -> None:
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise EkCertificateInvalid("a CA certificate is no EK certificate")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or _EK_CERTIFICATE not in purposes:
        raise EkCertificateInvalid("the certificate is not for an endorsement key (EKU 2.23.133.8.1)")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or usage.key_cert_sign or not (usage.key_encipherment or usage.key_agreement):
        raise EkCertificateInvalid("the key usage is not that of an endorsement key")


def _check_each(certificate: x509.Certificate, now: datetime) -> None:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise EkCertificateExpired(
            f"{certificate.subject.rfc4514_string() or 'the EK certificate'} is valid from "
            f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
        )
    unknown = [e.oid.dotted_string for e in certificate.extensions if e.critical and e.oid not in _UNDERSTOOD]
    if unknown:
        raise EkCertificateInvalid(f"critical extensions that we do not understand: {', '.join(unknown)}")


def _climb(
    leaf: x509.Certificate, chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> None:
    current, left, below = leaf, list(chain), 0
    while True:
        root = _issuer(current, roots)
        if root is not None:
            _check_authority(root, below, now)
            return
        issuer = _issuer(current, left)
        if issuer is None:
            raise EkCertificatePath(
                f"no configured root vouches for {current.issuer.rfc4514_string()}",
                advice="Add the vendor's root, after checking where it comes from, or send the intermediates.",
            )
        _check_authority(issuer, below, now)
        left.remove(issuer)
        current, below = issuer, below + 1


def _check_authority(authority: x509.Certificate, below: int, now: datetime) -> None:
    """4. `below` counts the intermediate certificates between this one and the EK certificate."""
    _check_each(authority, now)
    constraints = _extension(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise EkCertificatePath(f"{authority.subject.rfc4514_string()} is no certificate authority")
    if constraints.path_length is not None and below > constraints.path_length:
        raise EkCertificatePath(f"the path below {authority.subject.rfc4514_string()} is too long")
    usage = _extension(authority, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise EkCertificatePath(f"{authority.subject.rfc4514_string()} may not sign certificates")


def _issuer(certificate: x509.Certificate, candidates: Sequence[x509.Certificate]) -> x509.Certificate | None:
    hash_algorithm = certificate.signature_hash_algorithm
    if hash_algorithm is None or hash_algorithm.name not in _HASHES:
        raise EkCertificatePath("a certificate of the path is not signed with SHA-2")
    for candidate in candidates:
        try:
            certificate.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return candidate
    return None


def _extension(certificate: x509.Certificate, kind: type[_Wanted]) -> _Wanted | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
