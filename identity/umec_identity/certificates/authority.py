"""The platform CA: X.509 certificates for the in-memory TLS keys of attested nodes, ten minutes at most."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from umec_core.errors import UmecError, Unavailable
from umec_core.keys import load_or_create_key
from umec_identity.errors import CertificateInvalid, CsrInvalid

__all__ = ["CertificateAuthority", "CsrKey", "node_uri", "read_csr"]

CA_LIFE: Final = timedelta(days=3650)
"""The platform CA lives as long as its installation; nodes learn it at every start from the server."""

LEAF_LIFE: Final = timedelta(minutes=10)
"""Longer than an EAR lives is never needed; this is what a stolen TLS key is worth at most."""

BACKDATED: Final = timedelta(seconds=30)
"""A certificate begins this much earlier, for peers whose clock is behind; it counts towards its ten minutes."""

MAX_CSR: Final = 8192
"""Characters of a certificate request; one for P-256 has about 400."""


class PlatformCaInvalid(UmecError):
    """The file of the platform CA does not fit its key."""

    code = "platform-ca-invalid"


class PlatformCaExpired(Unavailable):
    """The time of the platform CA is over, or has not come: what it signs now would be worth nothing."""

    code = "platform-ca-expired"


class CsrKey:
    """A public key whose holder signed a certificate request; only `read_csr` makes one."""

    __slots__ = ("key", "sha256")

    def __init__(self, key: EllipticCurvePublicKey, sha256: str) -> None:
        self.key = key
        self.sha256 = sha256


def read_csr(pem: str) -> CsrKey:
    """Return the key of a certificate request, and the SHA-256 (hex) of its DER; raises `CsrInvalid`.

    Only the key counts: what a certificate says about its holder comes from the attestation, not from the request.
    """
    if len(pem) > MAX_CSR:
        raise CsrInvalid(f"the certificate request is longer than {MAX_CSR} characters")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CsrInvalid("this is not a certificate request in PEM for a kind of key that we know") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise CsrInvalid("the key of the certificate request is not P-256")
    if not signed:
        raise CsrInvalid("the certificate request is not signed with its own key")
    return CsrKey(key, hashlib.sha256(request.public_bytes(Encoding.DER)).hexdigest())


def node_uri(node: str) -> str:
    """Return the URI that names a node in its certificate."""
    return f"urn:umec:node:{node}"


class CertificateAuthority:
    """The CA's key and certificate."""

    def __init__(self, key: EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate: Final = certificate

    @classmethod
    def open(cls, folder: Path, now: datetime) -> "CertificateAuthority":
        """Return the CA of a folder (`platform-ca.key`, 0600, and `platform-ca.pem`), made where there is none."""
        key = load_or_create_key(folder / "platform-ca.key")
        path = folder / "platform-ca.pem"
        if not path.exists():
            path.write_bytes(_root(key, now).public_bytes(Encoding.PEM))
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if certificate.public_key() != key.public_key():
            raise PlatformCaInvalid(f"{path} is not the certificate of platform-ca.key")
        return cls(key, certificate)

    def pem(self) -> str:
        """Return the CA's certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, node: str, key: EllipticCurvePublicKey, *, until: datetime, now: datetime) -> x509.Certificate:
        """Return a client certificate for a node's TLS key: from just before now, until `until` or ten minutes.

        Raises `PlatformCaExpired`.
        """
        begins = now - BACKDATED
        ends = min(until, begins + LEAF_LIFE, self.certificate.not_valid_after_utc)
        if not self.certificate.not_valid_before_utc <= now < ends:
            raise PlatformCaExpired(
                f"the platform CA is valid until {self.certificate.not_valid_after_utc:%Y-%m-%d}",
                advice="replace platform-ca.key and platform-ca.pem; nodes get new certificates by themselves",
            )
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(node_uri(node))]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return builder.sign(self._key, SHA256())

    def check(self, certificate: x509.Certificate, *, node: str, now: datetime) -> None:
        """Check that we issued a certificate, to this node, and that it is valid now; raises `CertificateInvalid`."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise CertificateInvalid("the certificate is not one of the platform CA") from error
        if list(names) != [x509.UniformResourceIdentifier(node_uri(node))]:
            raise CertificateInvalid("the certificate is another node's")
        if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            raise CertificateInvalid("the certificate is not valid now")


def _root(key: EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "uMEC platform CA")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(days=1))
        .not_valid_after(now.astimezone(UTC) + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
