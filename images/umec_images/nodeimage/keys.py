"""Secure Boot keys: PK, KEK and db, each an RSA key with a certificate of its own.

RSA-2048 with SHA-256 is what every firmware takes.
"""

import datetime as dt
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from umec_core.keys import read_private
from umec_images.nodeimage.errors import KeysInvalid

__all__ = ["NAMES", "FileSigner", "SecureBootKeys", "load_certificates", "load_signer", "make_keys", "make_owner_key"]

NAMES: Final = ("PK", "KEK", "db")
KEY_SIZE: Final = 2048
YEARS: Final = 20
"""Firmware looks at no dates; a node lives that long."""


@dataclass(frozen=True, slots=True)
class SecureBootKeys:
    """The three certificates that go into a firmware's variables."""

    platform: x509.Certificate
    exchange: x509.Certificate
    database: x509.Certificate


@dataclass(frozen=True, slots=True)
class FileSigner:
    """A key that was read from a file, or stays in a token, and its certificate."""

    certificate: x509.Certificate
    _key: RSAPrivateKey = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """Return the RSASSA-PKCS1-v1_5 signature over `data` with SHA-256."""
        return self._key.sign(data, PKCS1v15(), SHA256())


def make_keys(folder: Path, now: dt.datetime, database: RSAPrivateKey | None = None) -> tuple[Path, ...]:
    """Make PK, KEK and db in a new folder; return the files. `database` is a key of db that stays where it is.

    Raises KeysInvalid where a file is there already, or that key is too short.
    """
    if database is not None and database.key_size < KEY_SIZE:
        raise KeysInvalid(f"the key of db has {database.key_size} bits, expected {KEY_SIZE} or more")
    files = [folder / f"{name}{suffix}" for name in NAMES for suffix in (".key", ".crt")]
    if database is not None:
        files.remove(folder / "db.key")
    present = [path.name for path in files if path.exists()]
    if present:
        raise KeysInvalid(f"{folder} already has {', '.join(present)}", advice="keys are never overwritten")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in NAMES:
        key = database if database is not None and name == "db" else generate_private_key(65537, KEY_SIZE)
        if folder / f"{name}.key" in files:
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(folder / f"{name}.key", pem, 0o600)
        _write(folder / f"{name}.crt", _certificate(name, key, now).public_bytes(Encoding.PEM), 0o644)
    return tuple(files)


def make_owner_key(folder: Path) -> tuple[Path, ...]:
    """Make the key (P-256) of who approves states of images; return the files. Raises KeysInvalid for one there."""
    secret, public = folder / "owner.key", folder / "owner.pem"
    if secret.exists() or public.exists():
        raise KeysInvalid(f"{folder} already has an owner's key", advice="keys are never overwritten")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    _write(secret, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return secret, public


def load_certificates(folder: Path) -> SecureBootKeys:
    """Read the three certificates. Raises KeysInvalid."""
    return SecureBootKeys(*(_load_certificate(folder / f"{name}.crt") for name in NAMES))


def load_signer(folder: Path, database: RSAPrivateKey | None = None) -> FileSigner:
    """Read the key that signs images, unless it is in a token, and check that it belongs to its certificate.

    Raises KeysInvalid; KeyFileExposed where others than the owner may read it.
    """
    certificate = _load_certificate(folder / "db.crt")
    if database is not None:
        if database.public_key() != certificate.public_key():
            raise KeysInvalid(f"the key in the token is not that of db.crt in {folder}")
        return FileSigner(certificate, database)
    try:
        key = load_pem_private_key(read_private(folder / "db.key"), None)
    except OSError as error:
        raise KeysInvalid(f"{folder / 'db.key'}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise KeysInvalid(f"{folder / 'db.key'} holds no private key in PEM") from error
    if not isinstance(key, RSAPrivateKey) or key.public_key() != certificate.public_key():
        raise KeysInvalid(f"db.key is not the RSA key of db.crt in {folder}")
    return FileSigner(certificate, key)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        advice = "make keys: umec nodeimage keys FOLDER"
        raise KeysInvalid(f"{path}: {error.strerror}", advice=advice) from error
    except ValueError as error:
        raise KeysInvalid(f"{path} holds no certificate in PEM") from error
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, TypeError, ValueError) as error:
        raise KeysInvalid(f"{path} is not signed by its own key") from error
    return certificate


def _certificate(name: str, key: RSAPrivateKey, now: dt.datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Secure Boot {name}")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
