"""What the log takes: `parse_entry` reads a Rekor v2 request, checks its signature, and gives the canonical body.

Kinds `hashedrekord` (also for DSSE: the digest is that of the PAE) and `dsse`, version 0.0.2, ECDSA P-256 with SHA-256.
The log of a private authority takes signatures of certificates that the authority issued and that are valid now.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from umec_images.authority.certificate import Issuer
from umec_images.authority.errors import (
    EntryCertificateExpired,
    EntryCertificateForeign,
    EntryInvalid,
    EntrySignatureInvalid,
)

__all__ = ["MAX_ENTRY", "LogEntry", "parse_entry"]

MAX_ENTRY: Final = 1 << 20
"""Bytes of a request; a DSSE envelope with a software bill of materials may be large, its log entry is not."""
_P256: Final = "PKIX_ECDSA_P256_SHA_256"
VERSION: Final = "0.0.2"


def _strict_base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error
    return text


Base64 = Annotated[str, Field(min_length=1, max_length=MAX_ENTRY), AfterValidator(_strict_base64)]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class _Certificate(_Wire):
    raw_bytes: Base64


class _Verifier(_Wire):
    x509_certificate: _Certificate
    key_details: Literal["PKIX_ECDSA_P256_SHA_256"]


class _Signature(_Wire):
    content: Base64
    verifier: _Verifier


class _HashedRekord(_Wire):
    digest: Base64
    signature: _Signature


class _EnvelopeSignature(_Wire):
    sig: Base64
    keyid: str = ""


class _Envelope(_Wire):
    payload: Base64
    payload_type: str = Field(min_length=1, max_length=256)
    signatures: list[_EnvelopeSignature] = Field(min_length=1, max_length=1)


class _Dsse(_Wire):
    envelope: _Envelope
    verifiers: list[_Verifier] = Field(min_length=1, max_length=1)


class _Request(_Wire):
    hashed_rekord: _HashedRekord | None = Field(default=None, alias="hashedRekordRequestV002")
    dsse: _Dsse | None = Field(default=None, alias="dsseRequestV002")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A signature that verified, in the form that is hashed into the tree; made by `parse_entry` only."""

    kind: str
    version: str
    body: bytes
    """RFC 8785 canonical JSON (every string in it is base64 or a constant in ASCII)."""


def parse_entry(data: bytes, *, issuer: Issuer, now: datetime) -> LogEntry:
    """Return the entry that `data` asks to log.

    Raises EntryInvalid, EntryCertificateForeign, EntryCertificateExpired or EntrySignatureInvalid.
    """
    if len(data) > MAX_ENTRY:
        raise EntryInvalid(f"the entry has more than {MAX_ENTRY} bytes")
    try:
        request = _Request.model_validate_json(data)
    except ValidationError as error:
        raise EntryInvalid(f"no request of a Rekor v2 log: {error.errors()[0]['msg']}") from error
    match request.hashed_rekord, request.dsse:
        case _HashedRekord() as wanted, None:
            return _hashed_rekord(wanted, issuer, now)
        case None, _Dsse() as wanted:
            return _dsse(wanted, issuer, now)
    raise EntryInvalid("a request is exactly one of hashedRekordRequestV002 and dsseRequestV002")


def _hashed_rekord(request: _HashedRekord, issuer: Issuer, now: datetime) -> LogEntry:
    digest = base64.b64decode(request.digest)
    _check(digest, request.signature.content, request.signature.verifier, issuer, now)
    spec = {"data": _digest(digest), "signature": request.signature.model_dump(by_alias=True)}
    return _entry("hashedrekord", {"hashedRekordV002": spec})


def _dsse(request: _Dsse, issuer: Issuer, now: datetime) -> LogEntry:
    envelope, verifier = request.envelope, request.verifiers[0]
    payload, kind = base64.b64decode(envelope.payload), envelope.payload_type.encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signature = envelope.signatures[0].sig
    _check(hashlib.sha256(pae).digest(), signature, verifier, issuer, now)
    signatures = [{"content": signature, "verifier": verifier.model_dump(by_alias=True)}]
    payload_hash = _digest(hashlib.sha256(payload).digest())
    return _entry("dsse", {"dsseV002": {"payloadHash": payload_hash, "signatures": signatures}})


def _check(digest: bytes, signature: str, verifier: _Verifier, issuer: Issuer, now: datetime) -> None:
    # 1. a P-256 certificate  2. that we issued  3. valid now  4. whose key made this signature.
    certificate, key = _certificate(verifier)
    if not issuer.issued(certificate):
        raise EntryCertificateForeign("this log takes only signatures of certificates that this authority issued")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise EntryCertificateExpired("the signing certificate is not valid now", advice="Sign again.")
    try:
        key.verify(base64.b64decode(signature), digest, ECDSA(Prehashed(hashes.SHA256())))
    except (InvalidSignature, ValueError) as error:
        raise EntrySignatureInvalid("the signature does not verify with the certificate's key") from error


def _certificate(verifier: _Verifier) -> tuple[x509.Certificate, EllipticCurvePublicKey]:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(verifier.x509_certificate.raw_bytes))
        key = certificate.public_key()
    except Exception as error:
        raise EntryInvalid("the verifier is no X.509 certificate") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise EntryInvalid(f"the certificate's key is not {_P256}")
    return certificate, key


def _digest(value: bytes) -> dict[str, str]:
    return {"algorithm": "SHA2_256", "digest": base64.b64encode(value).decode()}


def _entry(kind: str, spec: dict[str, Any]) -> LogEntry:
    body = {"apiVersion": VERSION, "kind": kind, "spec": spec}
    return LogEntry(kind, VERSION, json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
