"""RFC 3161 time stamps: `parse_request` reads what a client asks, `respond` signs it (ECDSA P-256, SHA-256).

What is signed is a CMS SignedData (RFC 5652) over a TSTInfo, with the certificate named by ESSCertIDv2 (RFC 5816).
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from umec_images.authority import der
from umec_images.authority.errors import TimestampRequestInvalid

__all__ = ["TimestampRequest", "parse_request", "respond"]

MAX_NONCE: Final = 32
"""Bytes. Clients send 8; nothing asks for more."""

_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_TST_INFO: Final = "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE_V2: Final = "1.2.840.113549.1.9.16.2.47"
_ECDSA_SHA256: Final = "1.2.840.10045.4.3.2"
_POLICY: Final = "1.3.6.1.4.1.57264.2"
"""The policy that Sigstore's own time-stamping authorities state."""
_NULL: Final = bytes([0x05, 0x00])


@dataclass(frozen=True, slots=True)
class TimestampRequest:
    """What a client wants stamped."""

    imprint: bytes
    """SHA-256 of its message."""
    nonce: bytes | None
    """The content of its INTEGER, given back as it came."""
    certificates: bool
    """Whether the answer shall carry the authority's certificate."""


def parse_request(data: bytes) -> TimestampRequest:
    """Read a TimeStampReq (RFC 3161 §2.4.1). Raises TimestampRequestInvalid for any other bytes."""
    outer = der.Reader(data)
    request = outer.enter(der.SEQUENCE)
    outer.finish()
    if request.read(der.INTEGER) != b"\x01":
        raise TimestampRequestInvalid("only version 1 is answered")
    imprint = _imprint(request.enter(der.SEQUENCE))
    if request.next_tag() == der.OID and der.tlv(der.OID, request.read(der.OID)) != der.oid(_POLICY):
        raise TimestampRequestInvalid("the policy asked for is not ours")
    nonce = _nonce(request) if request.next_tag() == der.INTEGER else None
    certificates = request.next_tag() == der.BOOLEAN and _true(request.read(der.BOOLEAN))
    request.finish()
    return TimestampRequest(imprint, nonce, certificates)


def _imprint(imprint: der.Reader) -> bytes:
    algorithm = imprint.enter(der.SEQUENCE)
    if der.tlv(der.OID, algorithm.read(der.OID)) != der.oid(_SHA256):
        raise TimestampRequestInvalid("only SHA-256 imprints are stamped")
    if not algorithm.at_end() and algorithm.data[algorithm.offset :] != _NULL:
        raise TimestampRequestInvalid("SHA-256 has no parameters")
    digest = imprint.read(der.OCTET_STRING)
    imprint.finish()
    if len(digest) != hashlib.sha256().digest_size:
        raise TimestampRequestInvalid("an imprint of SHA-256 has 32 bytes")
    return digest


def _nonce(request: der.Reader) -> bytes:
    nonce = request.read(der.INTEGER)
    if not 0 < len(nonce) <= MAX_NONCE:
        raise TimestampRequestInvalid(f"a nonce has 1 to {MAX_NONCE} bytes")
    return nonce


def _true(content: bytes) -> bool:
    if content not in (b"\x00", b"\xff"):
        raise TimestampRequestInvalid("a BOOLEAN is 00 or FF")
    return content == b"\xff"


def respond(
    request: TimestampRequest, *, key: EllipticCurvePrivateKey, certificate: Certificate, now: datetime
) -> bytes:
    """Return the TimeStampResp (DER) that grants `request` at `now`, in whole seconds."""
    info = _tst_info(request, now)
    attributes = (
        _attribute(_CONTENT_TYPE, der.oid(_TST_INFO)),
        _attribute(_MESSAGE_DIGEST, der.octets(hashlib.sha256(info).digest())),
        _attribute(_SIGNING_CERTIFICATE_V2, _certificate_id(certificate)),
    )
    signature = key.sign(der.set_of(*attributes), ECDSA(hashes.SHA256()))
    signer = der.sequence(
        der.integer(1),
        der.sequence(certificate.issuer.public_bytes(), der.integer(certificate.serial_number)),
        der.sequence(der.oid(_SHA256)),
        der.set_of(*attributes, tag=0xA0),
        der.sequence(der.oid(_ECDSA_SHA256)),
        der.octets(signature),
    )
    signed_data = der.sequence(
        der.integer(3),
        der.set_of(der.sequence(der.oid(_SHA256))),
        der.sequence(der.oid(_TST_INFO), der.tlv(0xA0, der.octets(info))),
        der.tlv(0xA0, certificate.public_bytes(Encoding.DER)) if request.certificates else b"",
        der.set_of(signer),
    )
    token = der.sequence(der.oid(_SIGNED_DATA), der.tlv(0xA0, signed_data))
    return der.sequence(der.sequence(der.integer(0)), token)


def _tst_info(request: TimestampRequest, now: datetime) -> bytes:
    return der.sequence(
        der.integer(1),
        der.oid(_POLICY),
        der.sequence(der.sequence(der.oid(_SHA256)), der.octets(request.imprint)),
        der.integer(secrets.randbits(127) + 1),
        der.generalized_time(now),
        der.sequence(der.integer(1)),  # accuracy: one second
        b"" if request.nonce is None else der.tlv(der.INTEGER, request.nonce),
    )


def _attribute(name: str, value: bytes) -> bytes:
    return der.sequence(der.oid(name), der.set_of(value))


def _certificate_id(certificate: Certificate) -> bytes:
    fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    return der.sequence(der.sequence(der.sequence(der.octets(fingerprint))))
