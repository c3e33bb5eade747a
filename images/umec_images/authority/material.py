"""The authority's keys and certificates, as files of its state directory; made at its first start.

`ca.key ct.key log.key tsa.key` (0600) and `ca.pem tsa.pem tsa-root.pem`. The key of the time-stamping root signs one
certificate and is forgotten: whoever steals the directory can make no second time-stamping authority under that root.
`retired.json` says what earlier keys are still believed for (`rotation`), and the folder `next` holds a whole new set
that is about to take their places.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from umec_core.keys import load_or_create_key, write_private
from umec_images.authority.certificate import Issuer, digital_signature_only
from umec_images.authority.errors import MaterialInvalid

__all__ = ["NEXT", "RETIRED", "AuthorityMaterial", "load_or_create", "sync_folder"]

RETIRED: Final = "retired.json"
NEXT: Final = "next"
"""The folder of a new set: where it is, it counts, and every file in it replaces the one of its name."""
LIFETIME: Final = timedelta(days=3650)
"""A site that must verify offline for years; rotation adds a second entry to the trusted root."""


@dataclass(frozen=True, slots=True)
class AuthorityMaterial:
    """Everything that this authority signs with, and the certificates that say so."""

    issuer: Issuer
    log_key: ec.EllipticCurvePrivateKey
    tsa_key: ec.EllipticCurvePrivateKey
    tsa_certificate: x509.Certificate
    tsa_root: x509.Certificate
    retired: Mapping[str, list[Any]]
    """Entries of trusted_root.json about earlier keys, by its members."""

    @property
    def since(self) -> datetime:
        """When this authority began."""
        return self.issuer.certificate.not_valid_before_utc


def load_or_create(state: Path, *, now: datetime) -> AuthorityMaterial:
    """Load the material in `state`, making what is missing. Raises MaterialInvalid where key and certificate differ."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    _replace(state)
    ca_key, tsa_key = load_or_create_key(state / "ca.key"), load_or_create_key(state / "tsa.key")
    start = now.replace(microsecond=0)
    ca_file, tsa_file, root_file = state / "ca.pem", state / "tsa.pem", state / "tsa-root.pem"
    if not ca_file.exists():
        _write(ca_file, _root("µMEC signing authority", ca_key, start))
    if not tsa_file.exists():
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = _root("µMEC time-stamping root", root_key, start)
        _write(root_file, root)
        _write(tsa_file, _tsa(tsa_key, root, root_key, start))
    return AuthorityMaterial(
        issuer=Issuer(_certificate(ca_file, ca_key), ca_key, load_or_create_key(state / "ct.key")),
        log_key=load_or_create_key(state / "log.key"),
        tsa_key=tsa_key,
        tsa_certificate=_certificate(tsa_file, tsa_key),
        tsa_root=x509.load_pem_x509_certificate(root_file.read_bytes()),
        retired=_retired(state / RETIRED),
    )


def sync_folder(folder: Path) -> None:
    """Return once the names in a folder are durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(state: Path) -> None:
    """Put a new set in place, or the rest of it where that was cut off."""
    folder = state / NEXT
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            file.replace(state / file.name)
        sync_folder(state)
        folder.rmdir()


def _retired(path: Path) -> dict[str, list[Any]]:
    try:
        document = json.loads(path.read_bytes())
        return {name: entries for name, entries in document.items() if isinstance(entries, list)}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise MaterialInvalid(f"{path.name} is no trusted root", advice="Restore it from a backup.") from error


def _write(path: Path, certificate: x509.Certificate) -> None:
    write_private(path, certificate.public_bytes(Encoding.PEM))


def _certificate(path: Path, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if certificate.public_key() != key.public_key():
        raise MaterialInvalid(
            f"{path.name} is not the certificate of {path.with_suffix('.key').name}",
            advice="Restore both files from the same backup.",
        )
    return certificate


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "µMEC"), x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def _root(common_name: str, key: ec.EllipticCurvePrivateKey, start: datetime) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(key.public_key(), start)
        .subject_name(_name(common_name))
        .issuer_name(_name(common_name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _tsa(
    key: ec.EllipticCurvePrivateKey, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey, start: datetime
) -> x509.Certificate:
    return (
        _builder(key.public_key(), start)
        .subject_name(_name("µMEC time-stamping authority"))
        .issuer_name(root.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .add_extension(digital_signature_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .sign(root_key, hashes.SHA256())
    )


def _builder(key: ec.EllipticCurvePublicKey, start: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .public_key(key)
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
