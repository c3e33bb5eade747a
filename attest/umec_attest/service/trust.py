"""What the service trusts from files: roots of TPM vendors, and the signers of reference sets."""

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from umec_core.errors import Invalid

__all__ = ["TrustFileInvalid", "load_roots", "load_signers"]

MAX_FILE: Final = 1024 * 1024
"""Bytes of a file with certificates; a bundle of all vendors has some hundred KB."""


class TrustFileInvalid(Invalid):
    """A file does not hold what it is trusted for: the service does not start with less than it was given."""

    code = "trust-file-invalid"


def load_roots(folder: Path | None) -> tuple[x509.Certificate, ...]:
    """Return the certificates of all files in a folder (PEM with one or more, or DER); raises `TrustFileInvalid`."""
    if folder is None:
        return ()
    if not folder.is_dir():
        raise TrustFileInvalid(f"{folder} is not a folder of root certificates")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return tuple(certificate for path in files for certificate in _certificates(path))


def load_signers(files: tuple[Path, ...]) -> tuple[EllipticCurvePublicKey, ...]:
    """Return the P-256 public keys of PEM files; raises `TrustFileInvalid`."""
    return tuple(_signer(path) for path in files)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        data = path.read_bytes()[:MAX_FILE]
        if b"-----BEGIN CERTIFICATE-----" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except (OSError, ValueError) as error:
        raise TrustFileInvalid(f"{path} holds no certificate in PEM or DER") from error


def _signer(path: Path) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(path.read_bytes()[:MAX_FILE])
    except (OSError, ValueError) as error:
        raise TrustFileInvalid(f"{path} holds no public key in PEM") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise TrustFileInvalid(f"{path} holds another kind of key, expected P-256")
    return key
