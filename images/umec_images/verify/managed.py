"""Signatures by a managed key: no certificate, so the key is the identity; log and times are checked as ever.

The library verifies certificates only. What is missing and done here:
    1. the bundle says that it was signed by a key;
    2. its log entry is in the log, the checkpoint and the promise are the log's       (library)
    3. the signature is the key's, over the digest or the PAE;
    4. the log entry is a hashedrekord about just this digest, signature and key.
"""

import base64
import hashlib
import json
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from sigstore.models import TransparencyLogEntry, TrustedRoot
from sigstore_models.bundle.v1 import Bundle
from sigstore_models.common.v1 import MessageSignature
from sigstore_models.intoto import Envelope

from umec_core.dsse import pre_authentication_encoding
from umec_images.errors import SignatureInvalid
from umec_images.verify.library import verify_log_entry

__all__ = ["load_key", "verify_artifact", "verify_envelope"]


def load_key(pem: bytes) -> EllipticCurvePublicKey:
    """Return the P-256 public key in a PEM file; raises SignatureInvalid."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureInvalid("there is no public key in the PEM file to verify with") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise SignatureInvalid("a managed key is P-256 here")
    return key


def verify_artifact(
    bundle: Bundle, signed: MessageSignature, digest: bytes, key: EllipticCurvePublicKey, root: TrustedRoot
) -> None:
    """Return if `key` signed what has this SHA-256 digest; raises SignatureInvalid, or what the library does."""
    if signed.message_digest is not None and signed.message_digest.digest != digest:
        raise SignatureInvalid("the bundle is about another digest")
    _verify(bundle, digest, signed.signature, key, root)


def verify_envelope(bundle: Bundle, envelope: Envelope, key: EllipticCurvePublicKey, root: TrustedRoot) -> None:
    """Return if `key` made the envelope's first signature; raises SignatureInvalid, or what the library does."""
    signed = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    _verify(bundle, hashlib.sha256(signed).digest(), envelope.signatures[0].sig, key, root)


def _verify(bundle: Bundle, digest: bytes, signature: bytes, key: EllipticCurvePublicKey, root: TrustedRoot) -> None:
    material = bundle.verification_material
    if material.public_key is None:  # 1
        raise SignatureInvalid("the bundle was signed with a certificate, and a key is expected")
    if not isinstance(key.curve, SECP256R1):
        raise SignatureInvalid("a managed key is P-256 here")
    if len(material.tlog_entries) != 1:
        raise SignatureInvalid("the bundle does not hold exactly one log entry")
    entry = material.tlog_entries[0]
    verify_log_entry(TransparencyLogEntry(entry), root)  # 2
    try:
        key.verify(signature, digest, ECDSA(Prehashed(SHA256())))  # 3
    except InvalidSignature as error:
        raise SignatureInvalid("the signature was not made by the expected key") from error
    logged = _logged(entry.kind_version.kind, entry.kind_version.version, json.loads(entry.canonicalized_body))
    if logged != (digest, signature, _spki(key)):  # 4
        raise SignatureInvalid("the log entry is not about this signature")


def _logged(kind: str, version: str, body: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Return digest, signature and key (SubjectPublicKeyInfo) of a canonical hashedrekord."""
    if (body["kind"], body["apiVersion"]) != (kind, version):
        raise SignatureInvalid("the log entry is of another kind than it says")
    match kind, version:
        case "hashedrekord", "0.0.1":
            spec = body["spec"]
            if spec["data"]["hash"]["algorithm"] != "sha256":
                raise SignatureInvalid("the log entry has another hash algorithm")
            key = load_pem_public_key(_decode(spec["signature"]["publicKey"]["content"]))
            digest = bytes.fromhex(spec["data"]["hash"]["value"])
        case "hashedrekord", "0.0.2":
            spec = body["spec"]["hashedRekordV002"]
            if spec["data"]["algorithm"] != "SHA2_256":
                raise SignatureInvalid("the log entry has another hash algorithm")
            key = load_der_public_key(_decode(spec["signature"]["verifier"]["publicKey"]["rawBytes"]))
            digest = _decode(spec["data"]["digest"])
        case _:
            raise SignatureInvalid(f"a log entry of the kind {kind} {version} is not read for managed keys")
    return digest, _decode(spec["signature"]["content"]), _spki(key)


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
