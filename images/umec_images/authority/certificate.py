"""Certificates for one signature: a P-256 key that proved itself, an identity that was proved, ten minutes.

Profile: Fulcio's (SAN = the identity as a URI, critical because the subject is empty; code signing; the issuer of the
identity in 1.3.6.1.4.1.57264.1.8 and, for old readers, .1.1; one embedded SCT).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from umec_images.authority import der
from umec_images.authority.errors import CsrInvalid, CsrProofInvalid
from umec_images.authority.sct import sct_extension

__all__ = ["LIFETIME", "MAX_CSR", "Issuer", "ProvenKey", "SigningIdentity", "digital_signature_only", "prove_key"]

LIFETIME: Final = timedelta(minutes=10)
"""Long enough to sign and log, short enough that a forgotten key is worthless."""
MAX_CSR: Final = 4096
"""Bytes of PEM. A request for a P-256 key has about 500."""

_ISSUER_V1: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_UTF8_STRING: Final = 0x0C


@dataclass(frozen=True, slots=True)
class SigningIdentity:
    """Who signs; made by `identity.IdentityVerifier` only."""

    subject: str
    """A URI."""
    issuer: str
    """URL of the authorization server that vouches for the subject."""


@dataclass(frozen=True, slots=True)
class ProvenKey:
    """A public key whose holder signed a request with it; made by `prove_key` only."""

    key: EllipticCurvePublicKey


def prove_key(csr: bytes) -> ProvenKey:
    """Return the key of a PEM certificate signing request that is signed by that very key.

    Everything else in the request (names, extensions) is ignored on purpose: the token says who asks.
    Raises CsrInvalid or CsrProofInvalid.
    """
    if len(csr) > MAX_CSR:
        raise CsrInvalid(f"the request has more than {MAX_CSR} bytes")
    try:
        request = x509.load_pem_x509_csr(csr)
        key = request.public_key()
        proven = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise CsrInvalid("this is no certificate signing request") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise CsrInvalid("only P-256 keys are certified")
    if not proven:
        raise CsrProofInvalid("the request is not signed by the key that it carries")
    return ProvenKey(key)


def digital_signature_only() -> x509.KeyUsage:
    """Key usage of a leaf that signs and does nothing else."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class Issuer:
    """The certificate authority: its certificate and key, and the key of its transparency promises."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    ct_key: EllipticCurvePrivateKey

    def issue(self, key: ProvenKey, identity: SigningIdentity, *, now: datetime) -> x509.Certificate:
        """Return a certificate for `key` that names `identity`, valid from `now` for LIFETIME."""
        builder = self._profile(key, identity, now.replace(microsecond=0))
        draft = builder.sign(self.key, hashes.SHA256())
        promise = sct_extension(draft.tbs_certificate_bytes, issuer=self.key.public_key(), key=self.ct_key, now=now)
        return builder.add_extension(promise, critical=False).sign(self.key, hashes.SHA256())

    def issued(self, certificate: x509.Certificate) -> bool:
        """Say whether the authority's key signed this certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _profile(self, key: ProvenKey, identity: SigningIdentity, start: datetime) -> x509.CertificateBuilder:
        san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.subject)])
        issuer = identity.issuer.encode()
        return (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(key.key)
            .not_valid_before(start)
            .not_valid_after(start + LIFETIME)
            .add_extension(digital_signature_only(), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(san, critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V1, issuer), critical=False)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V2, der.tlv(_UTF8_STRING, issuer)), critical=False)
        )
