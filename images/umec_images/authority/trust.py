"""What others need to sign here and to verify offline: trusted root, signing configuration, both as one file.

Formats: `trusted_root.json` v0.1, signing configuration v0.2 and client trust configuration v0.1 of Sigstore's
protobuf-specs, in their JSON form.
"""

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_images.authority.material import AuthorityMaterial
from umec_images.authority.sct import key_id

__all__ = ["client_trust_config", "trusted_root"]

OPERATOR = "umec"


def trusted_root(material: AuthorityMaterial, *, url: str) -> dict[str, Any]:
    """Return trusted_root.json of the authority at `url` (no trailing slash)."""
    since, retired = _since(material), material.retired
    tsa = [material.tsa_certificate, material.tsa_root]
    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [_log(f"{url}/sigstore/rekor", material.log_key.public_key(), since), *retired.get("tlogs", ())],
        "certificateAuthorities": [
            _authority(f"{url}/sigstore/fulcio", [material.issuer.certificate], since),
            *retired.get("certificateAuthorities", ()),
        ],
        "ctlogs": [_log(f"{url}/sigstore/ct", material.issuer.ct_key.public_key(), since), *retired.get("ctlogs", ())],
        "timestampAuthorities": [
            _authority(f"{url}/sigstore/tsa", tsa, since),
            *retired.get("timestampAuthorities", ()),
        ],
    }


def client_trust_config(material: AuthorityMaterial, *, url: str, issuer: str) -> dict[str, Any]:
    """Return client_trust_config.json: what a signing client needs to know, in one file."""
    since = _since(material)
    signing = {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [_service(f"{url}/sigstore/fulcio", 1, since)],
        "oidcUrls": [_service(issuer, 1, since)],
        "rekorTlogUrls": [_service(f"{url}/sigstore/rekor", 2, since)],
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaUrls": [_service(f"{url}/sigstore/tsa/api/v1/timestamp", 1, since)],
        "tsaConfig": {"selector": "ANY"},
    }
    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": trusted_root(material, url=url),
        "signingConfig": signing,
    }


def _since(material: AuthorityMaterial) -> str:
    return material.since.strftime("%Y-%m-%dT%H:%M:%SZ")


def _log(url: str, key: EllipticCurvePublicKey, since: str) -> dict[str, Any]:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": _base64(spki),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": since},
        },
        "logId": {"keyId": _base64(key_id(key))},
    }


def _authority(url: str, chain: list[x509.Certificate], since: str) -> dict[str, Any]:
    return {
        "subject": {"organization": "µMEC", "commonName": chain[-1].subject.rfc4514_string()},
        "uri": url,
        "certChain": {"certificates": [{"rawBytes": _base64(each.public_bytes(Encoding.DER))} for each in chain]},
        "validFor": {"start": since},
    }


def _service(url: str, version: int, since: str) -> dict[str, Any]:
    return {"url": url, "majorApiVersion": version, "validFor": {"start": since}, "operator": OPERATOR}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
