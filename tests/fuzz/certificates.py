"""A root, and certificates of endorsement keys whose signed part is whatever is given."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, derive_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from umec_attest.testing.authority import key_usage

__all__ = ["KEY", "NOW", "ROOT", "ek_certificate", "signed"]

KEY = derive_private_key(0x0DDBA11, SECP256R1())
"""Signs what is only read behind a signature; it is the root's key and the EK, too."""
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
TPM = {"2.23.133.2.1": "id:00001014", "2.23.133.2.2": "swtpm", "2.23.133.2.3": "id:20191023"}


def _built(subject: str, usages: set[str], *extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name({NameOID.COMMON_NAME.dotted_string: subject}))
        .issuer_name(_name({NameOID.COMMON_NAME.dotted_string: "root"}))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=3650))
        .add_extension(key_usage(**dict.fromkeys(usages, True)), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(KEY, SHA256())


def _name(parts: dict[str, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(ObjectIdentifier(kind), value) for kind, value in parts.items()])


def _root() -> x509.Certificate:
    return _built("root", {"key_cert_sign", "crl_sign"}, (x509.BasicConstraints(ca=True, path_length=0), True))


def ek_certificate() -> x509.Certificate:
    """Return a good certificate of an EK, with every extension that its profile knows."""
    return _built(
        "ek",
        {"key_agreement"},
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.SubjectAlternativeName([x509.DirectoryName(_name(TPM))]), True),
        (x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.1")]), False),
    )


def signed(tbs: bytes) -> bytes:
    """Return a certificate with this signed part, really signed by the root."""
    signature = b"\0" + KEY.sign(tbs, ECDSA(SHA256()))
    return _der(0x30, tbs + ECDSA_WITH_SHA256 + _der(0x03, signature))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


ROOT = _root().public_bytes(Encoding.DER)
