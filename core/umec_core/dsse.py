"""Dead Simple Signing Envelope, version 1, with ECDSA P-256 and SHA-256 only.

    DsseError
    ├── DsseMalformed    dsse-malformed
    ├── DsseType         dsse-payload-type
    ├── DsseNoKeys       dsse-no-keys
    └── DsseSignature    dsse-signature-invalid

The steps of `verify`, after the protocol text of DSSE:
    1. the envelope is JSON of bounded size with payload, payloadType and at least one signature;
    2. its payload type is the expected one;
    3. at least one signature over PAE(payloadType, payload) is good under one of the given keys
       (a keyid is a hint that we do not even read: it is not authenticated);
    4. only then the payload is returned.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_core.errors import UmecError

__all__ = [
    "IN_TOTO",
    "DsseError",
    "DsseMalformed",
    "DsseNoKeys",
    "DsseSignature",
    "DsseType",
    "key_id",
    "pre_authentication_encoding",
    "sign",
    "verify",
]

IN_TOTO: Final = "application/vnd.in-toto+json"

MAX_ENVELOPE: Final = 16 * 1024 * 1024
"""Bytes; the largest payload that we sign or read is an SBOM of a whole image, some megabytes."""

MAX_SIGNATURES: Final = 16
"""Each signature is tried under each key: this bounds the work of a hostile envelope."""


class DsseError(UmecError):
    """An envelope does not prove its payload."""

    code = "dsse-invalid"


class DsseMalformed(DsseError):
    """The envelope is not one."""

    code = "dsse-malformed"


class DsseType(DsseError):
    """The payload is of another type than the one expected."""

    code = "dsse-payload-type"


class DsseNoKeys(DsseError):
    """There is no key to verify with: that never means "no check"."""

    code = "dsse-no-keys"


class DsseSignature(DsseError):
    """No signature is good under any key that is trusted for this."""

    code = "dsse-signature-invalid"


def key_id(key: EllipticCurvePublicKey) -> str:
    """Return the key id that we write: SHA-256 of the SubjectPublicKeyInfo in DER, as hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return PAE(type, payload): the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, key: EllipticCurvePrivateKey) -> bytes:
    """Return a JSON envelope with one signature (ECDSA in DER); the key must be P-256."""
    if not isinstance(key.curve, SECP256R1):
        raise DsseSignature("a DSSE envelope is signed with P-256 here")
    signature = key.sign(pre_authentication_encoding(payload_type, payload), ECDSA(SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


def verify(envelope: bytes, *, keys: Sequence[EllipticCurvePublicKey], payload_type: str) -> bytes:
    """Return the payload of an envelope that one of `keys` has signed; raises a `DsseError`."""
    if not keys:
        raise DsseNoKeys("no key is configured to verify this envelope with")
    found_type, payload, signatures = _parse(envelope)  # 1
    if found_type != payload_type:  # 2
        raise DsseType(f"the payload type is {found_type[:100]!r}, expected {payload_type!r}")
    signed = pre_authentication_encoding(found_type, payload)
    if not any(_good(signature, signed, key) for signature in signatures for key in keys):  # 3
        raise DsseSignature("no signature of the envelope was made by a key that is trusted for it")
    return payload  # 4


def _good(signature: bytes, signed: bytes, key: EllipticCurvePublicKey) -> bool:
    if not isinstance(key.curve, SECP256R1):
        raise DsseNoKeys("a key to verify with is not P-256")
    try:
        key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _parse(envelope: bytes) -> tuple[str, bytes, list[bytes]]:
    if len(envelope) > MAX_ENVELOPE:
        raise DsseMalformed(f"the envelope has {len(envelope)} bytes, at most {MAX_ENVELOPE} are read")
    try:
        value = json.loads(envelope, object_pairs_hook=_unique_members)
    except (ValueError, RecursionError) as error:
        raise DsseMalformed("the envelope is not JSON in which every member occurs once") from error
    if not isinstance(value, dict):
        raise DsseMalformed("the envelope is not a JSON object")
    payload_type = value.get("payloadType")
    signatures = value.get("signatures")
    if not isinstance(payload_type, str) or not payload_type.isascii():
        raise DsseMalformed("payloadType is missing or not an ASCII string")
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise DsseMalformed(f"signatures is not a list of 1 to {MAX_SIGNATURES}")
    return payload_type, _decode(value.get("payload"), "payload"), [_signature(entry) for entry in signatures]


def _signature(entry: object) -> bytes:
    if not isinstance(entry, dict):
        raise DsseMalformed("a signature is not a JSON object")
    return _decode(entry.get("sig"), "sig")


def _decode(value: object, name: str) -> bytes:
    """Decode base64: DSSE allows the standard and the URL-safe alphabet, not a mixture."""
    if not isinstance(value, str):
        raise DsseMalformed(f"{name} is missing or not a string")
    alphabet = b"-_" if ("-" in value or "_" in value) else b"+/"
    try:
        return base64.b64decode(value.encode("ascii"), altchars=alphabet, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DsseMalformed(f"{name} is not base64") from error


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members
