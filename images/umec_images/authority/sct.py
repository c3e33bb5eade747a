"""Signed certificate timestamps (RFC 6962 §3.2), embedded in the certificates that this authority issues.

The log that they promise is the certificate authority's own record: the key is separate, so that a verifier notices a
certificate that the issuing key alone made.
"""

import hashlib
import struct
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

from umec_images.authority import der

__all__ = ["key_id", "sct_extension"]

_SCT_LIST: Final = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_V1: Final = 0
_CERTIFICATE_TIMESTAMP: Final = 0
_PRECERT_ENTRY: Final = 1
_SHA256_ECDSA: Final = b"\x04\x03"


def key_id(key: EllipticCurvePublicKey) -> bytes:
    """SHA-256 of a public key's SubjectPublicKeyInfo: the name of a log, and of an issuer in an SCT."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def sct_extension(
    tbs: bytes, *, issuer: EllipticCurvePublicKey, key: EllipticCurvePrivateKey, now: datetime
) -> UnrecognizedExtension:
    """Return the extension that promises the certificate whose TBSCertificate, still without it, is `tbs`."""
    milliseconds = int(now.timestamp() * 1000)
    size = len(tbs).to_bytes(3, "big")
    entry = key_id(issuer) + size + tbs
    header = struct.pack("!BBQH", _V1, _CERTIFICATE_TIMESTAMP, milliseconds, _PRECERT_ENTRY)
    signature = key.sign(header + entry + _no_extensions(), ECDSA(hashes.SHA256()))
    sct = struct.pack("!B32sQ", _V1, key_id(key.public_key()), milliseconds) + _no_extensions()
    sct += _SHA256_ECDSA + _vector(signature)
    return UnrecognizedExtension(_SCT_LIST, der.octets(_vector(_vector(sct))))


def _no_extensions() -> bytes:
    return _vector(b"")


def _vector(content: bytes) -> bytes:
    return struct.pack("!H", len(content)) + content
