"""The server CA of a site and the certificate of its listeners."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from umec_core.keys import load_or_create_key

__all__ = ["ServerCertificate", "server_certificate"]

CA_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=90)
"""A listener's certificate is made anew at each start, so this only bounds how long a site may run without one."""
BACKDATE: Final = timedelta(minutes=5)
"""For clients whose clocks are a little slow."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files for a TLS listener, and the CA that its clients pin."""

    certificate: Path
    key: Path
    ca: Path


def server_certificate(folder: Path, *, names: tuple[str, ...], now: datetime) -> ServerCertificate:
    """Return the listeners' certificate for `names` (DNS names or IP addresses); the CA is made once and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = load_or_create_key(folder / "server-ca.key")
    ca_file = folder / "server-ca.pem"
    if ca_file.exists():
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
    else:
        ca = _authority(ca_key, now)
        ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    key = load_or_create_key(folder / "server.key")
    leaf_file = folder / "server.pem"
    leaf_file.write_bytes(_leaf(ca, ca_key, key, names, now).public_bytes(serialization.Encoding.PEM))
    return ServerCertificate(leaf_file, folder / "server.key", ca_file)


def _authority(key: EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "umec server CA")])
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    ca: x509.Certificate,
    ca_key: EllipticCurvePrivateKey,
    key: EllipticCurvePrivateKey,
    names: tuple[str, ...],
    now: datetime,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LEAF_LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


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
