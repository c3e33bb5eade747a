"""What the service trusts from files: roots of makers of TPMs and devices, signers of reference sets and decisions."""

import base64
import binascii
import re
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from umec_attest.certificates.certificate import Certificate, CertificateMalformed, load_certificate
from umec_attest.certificates.path import TrustStore, sort_bundle
from umec_core.errors import Invalid
from umec_core.jose import JwkInvalid, JwtMalformed, KeySet, strict_json

__all__ = ["TrustFileInvalid", "load_bundle", "load_keys", "load_signers"]

MAX_FILE: Final = 1024 * 1024
"""Bytes of a file with certificates; a bundle of all vendors has some hundred KB."""

ANCHORS: Final = "anchors"
"""The folder in a bundle whose certificates end a path though another authority signed them."""

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


class TrustFileInvalid(Invalid):
    """A file does not hold what it is trusted for: the service does not start with less than it was given."""

    code = "trust-file-invalid"


def load_bundle(folder: Path | None, *, tolerate: bool = False) -> TrustStore:
    """Return the certificates of all files in a folder (PEM with one or more, or DER).

    Those that name themselves as issuer are roots, as are all in its sub-folder `anchors`; the others only help to
    build a path to a root. `tolerate` reads vendors' malformed certificates, too. Raises `TrustFileInvalid`, also for
    certificates with no root among them: whoever put them there believes somebody, and nobody would be believed.
    """
    if folder is None:
        return TrustStore(())
    if not folder.is_dir():
        raise TrustFileInvalid(f"{folder} is not a folder of certificates")
    anchors = folder / ANCHORS
    more = _folder(anchors, tolerate=tolerate) if anchors.is_dir() else []
    store = sort_bundle(_folder(folder, tolerate=tolerate), anchors=more)
    if store.intermediates and not store.anchors:
        raise TrustFileInvalid(
            f"no certificate in {folder} is a root: each was signed by another authority",
            advice=f"Put the root beside it, or the certificate that is to end a path into {anchors}.",
        )
    return store


def load_signers(files: tuple[Path, ...]) -> tuple[EllipticCurvePublicKey, ...]:
    """Return the P-256 public keys of PEM files; raises `TrustFileInvalid`."""
    return tuple(_signer(path) for path in files)


def load_keys(path: Path) -> KeySet:
    """Return the keys of a JWKS file; raises `TrustFileInvalid`."""
    try:
        return KeySet.from_jwks(strict_json(path.read_bytes()[:MAX_FILE]))
    except (OSError, JwkInvalid, JwtMalformed) as error:
        raise TrustFileInvalid(f"{path} holds no set of public keys (JWKS)") from error


def _folder(folder: Path, *, tolerate: bool) -> list[Certificate]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [certificate for path in files for certificate in _certificates(path, tolerate=tolerate)]


def _certificates(path: Path, *, tolerate: bool) -> list[Certificate]:
    try:
        data = path.read_bytes()[:MAX_FILE]
        return [load_certificate(der, tolerate=tolerate) for der in _encoded(data)]
    except CertificateMalformed as error:
        advice = None if tolerate else 'Vendors\' malformed ones: attest.malformed_ek_certificates = "tolerate".'
        raise TrustFileInvalid(f"{path} holds a malformed certificate: {error}", advice=advice) from error
    except (OSError, binascii.Error) as error:
        raise TrustFileInvalid(f"{path} holds no certificate in PEM or DER") from error


def _encoded(data: bytes) -> list[bytes]:
    if _BEGIN not in data:
        return [data]
    found = [base64.b64decode(b"".join(text.split()), validate=True) for text in _PEM.findall(data)]
    if len(found) != data.count(_BEGIN):
        raise binascii.Error("a certificate in PEM without an end")
    return found


def _signer(path: Path) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(path.read_bytes()[:MAX_FILE])
    except (OSError, ValueError) as error:
        raise TrustFileInvalid(f"{path} holds no public key in PEM") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise TrustFileInvalid(f"{path} holds another kind of key, expected P-256")
    return key
