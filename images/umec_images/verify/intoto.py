"""Log entries of the kind `intoto` 0.0.2 (Rekor v1, before `dsse`), which the library refuses.

1. certificate, times and log entry are good as for any other kind              (library)
2. the signature over the PAE is the certificate's key's
3. the log entry is about this payload, this signature and this certificate
"""

import base64
import hashlib
import json
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from sigstore.models import Bundle
from sigstore_models.bundle import v1
from sigstore_models.intoto import Envelope

from umec_core.dsse import pre_authentication_encoding
from umec_images.errors import SignatureInvalid
from umec_images.verify.trust import TrustRoot

__all__ = ["is_intoto", "verify"]

KIND: Final = ("intoto", "0.0.2")


def is_intoto(bundle: v1.Bundle) -> bool:
    """Say whether the log entry of a bundle is of this kind."""
    entries = bundle.verification_material.tlog_entries
    return any((entry.kind_version.kind, entry.kind_version.version) == KIND for entry in entries)


def verify(envelope: Envelope, verified: Bundle, root: TrustRoot, times: tuple[datetime, ...]) -> None:
    """Return if the bundle's certificate signed its envelope; raises SignatureInvalid, or what the library does."""
    root.verifier(times).verify_certificate(verified)  # 1
    key = verified.signing_certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise SignatureInvalid("the certificate's key is not P-256")
    signature = envelope.signatures[0].sig
    try:
        key.verify(
            signature, pre_authentication_encoding(envelope.payload_type, envelope.payload), ECDSA(SHA256())
        )  # 2
    except InvalidSignature as error:
        raise SignatureInvalid("the signature was not made by the certificate's key") from error
    entry = verified.log_entry._inner  # noqa: SLF001 - the entry as it was parsed
    _about(json.loads(entry.canonicalized_body), envelope.payload, envelope.payload_type, signature, verified)  # 3


def _about(body: dict[str, object], payload: bytes, payload_type: str, signature: bytes, verified: Bundle) -> None:
    match body:
        case {
            "kind": "intoto",
            "apiVersion": "0.0.2",
            "spec": {
                "content": {
                    "envelope": {
                        "payloadType": str(logged_type),
                        "signatures": [{"sig": str(logged_signature), "publicKey": str(logged_key)}],
                    },
                    "payloadHash": {"algorithm": "sha256", "value": str(logged_hash)},
                }
            },
        }:
            # This kind of entry holds signature and payload in base64 of their base64.
            twice = base64.b64encode(base64.b64encode(signature)).decode()
            logged_certificate = x509.load_pem_x509_certificate(base64.b64decode(logged_key, validate=True))
            same = (
                logged_type == payload_type
                and logged_signature == twice
                and logged_certificate == verified.signing_certificate
                and logged_hash == hashlib.sha256(payload).hexdigest()
            )
        case _:
            same = False
    if not same:
        raise SignatureInvalid("the log entry is not about this envelope")
