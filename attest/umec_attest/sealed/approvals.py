"""Approvals: an owner's signature that a state of an image may open what was sealed for that image.

What is signed is what TPM2_PolicyAuthorize takes, so that the TPM checks it, whatever software asks:

    policy      PolicyPCR(values of the image) and PolicyNV(counter at most `version`)
    reference   SHA-256 of the image's name: an approval for one image opens nothing of another

An approval is a JSON object. All of it is covered by the signature, because policy and reference are computed from it.
It is read on the node, too: by hand, for a validation library weighs more than the rest of the agent.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from umec_attest.digests import parse_pcr_values
from umec_attest.errors import ApprovalInvalid, ApprovalSignature, AttestError
from umec_attest.quote import RESETTABLE_PCRS
from umec_attest.sealed.counter import counter_name
from umec_attest.sealed.owners import OwnerKey, OwnerPrivateKey, owner_public
from umec_attest.sealed.policies import EMPTY, Comparison, policy_nv, policy_pcr
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.signature import EcdsaSignature, RsaSignature, Scheme, parse_signature
from umec_attest.tpm.verify import check_key_strength, verify_signature
from umec_attest.tpm.wire import u64
from umec_core.jose import strict_json
from umec_core.jose.errors import JwtMalformed

__all__ = ["IMAGE", "MAX_APPROVAL", "Approval", "approval_reference", "sign_approval", "verify_approval"]

MAX_APPROVAL: Final = 16 * 1024
"""Bytes; one with all 24 PCRs and an RSA signature has some 3 KB."""
MAX_VERSION: Final = 2**32 - 1
"""A counter is counted up one by one: nobody gets near it."""

IMAGE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""The name of an image."""

_MEMBERS: Final = frozenset({"format", "image", "version", "pcrs", "signature"})
_REFERENCE: Final = b"umec sealed for\0"
_SHA256: Final = HashAlgorithm.SHA256


@dataclass(frozen=True, slots=True)
class _Wire:
    """What an approval says, each member of its form; nothing of it is verified."""

    image: str
    version: int
    pcrs: Mapping[int, bytes]
    signature: bytes


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval whose signature was verified. Only `verify_approval` makes one.

    `pcrs` of the SHA-256 bank; `policy` and `reference` are what the TPM is given, `signature` is a TPMT_SIGNATURE.
    """

    image: str
    version: int
    pcrs: Mapping[int, bytes]
    policy: bytes
    reference: bytes
    signature: bytes


def sign_approval(*, image: str, version: int, pcrs: Mapping[int, bytes], key: OwnerPrivateKey) -> bytes:
    """Approve a state of an image; returns the JSON. `version` is at least 1, and rises to keep older states out.

    Errors: `ApprovalInvalid`, `KeyWeak`.
    """
    content = {
        "format": 1,
        "image": image,
        "version": version,
        "pcrs": {_SHA256.label: {str(index): pcrs[index].hex() for index in sorted(pcrs)}},
        "signature": "",
    }
    wire = _parsed(json.dumps(content).encode())
    check_key_strength(owner_public(key.public_key()))
    message = _policy(wire) + approval_reference(image)
    signature: EcdsaSignature | RsaSignature
    if isinstance(key, rsa.RSAPrivateKey):
        signature = RsaSignature(Scheme.RSASSA, _SHA256, key.sign(message, padding.PKCS1v15(), SHA256()))
    else:
        size = (key.curve.key_size + 7) // 8
        r, s = (number.to_bytes(size, "big") for number in decode_dss_signature(key.sign(message, ec.ECDSA(SHA256()))))
        signature = EcdsaSignature(_SHA256, r, s)
    content["signature"] = base64.b64encode(signature.to_bytes()).decode()
    return json.dumps(content, indent=1).encode() + b"\n"


def verify_approval(data: bytes, owner: OwnerKey) -> Approval:
    """Return an approval that this owner signed.

    Errors: `ApprovalInvalid`, `ApprovalSignature`, `KeyWeak`.
    """
    wire = _parsed(data)
    public, policy, reference = owner_public(owner), _policy(wire), approval_reference(wire.image)
    check_key_strength(public)
    try:
        verify_signature(public, parse_signature(wire.signature), policy + reference)
    except AttestError as error:
        raise ApprovalSignature("this owner has not signed the approval") from error
    return Approval(wire.image, wire.version, MappingProxyType(dict(wire.pcrs)), policy, reference, wire.signature)


def approval_reference(image: str) -> bytes:
    """Return the policyRef that ties an approval to what was sealed for an image."""
    return _SHA256.digest(_REFERENCE + image.encode())


def _policy(wire: _Wire) -> bytes:
    return policy_nv(policy_pcr(EMPTY, wire.pcrs), counter_name(), u64(wire.version), Comparison.AT_MOST)


def _parsed(data: bytes) -> _Wire:
    if len(data) > MAX_APPROVAL:
        raise ApprovalInvalid(f"an approval has at most {MAX_APPROVAL} bytes")
    try:
        members = strict_json(data)
        banks = parse_pcr_values(members.get("pcrs"))
    except (JwtMalformed, AttestError) as error:
        raise ApprovalInvalid("this is no approval") from error
    if members.keys() != _MEMBERS or not _is_number(members["format"], 1) or set(banks) != {_SHA256}:
        raise ApprovalInvalid("this is no approval: format 1, image, version, pcrs (SHA-256) and signature")
    values = banks[_SHA256]
    if not values:
        raise ApprovalInvalid("an approval names values of the SHA-256 bank")
    if RESETTABLE_PCRS & values.keys():
        raise ApprovalInvalid("PCRs 16 and 23 can be reset, and prove nothing")
    return _Wire(_image(members["image"]), _version(members["version"]), values, _octets(members["signature"]))


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _image(value: object) -> str:
    if not isinstance(value, str) or IMAGE.fullmatch(value) is None:
        raise ApprovalInvalid("an image's name has small letters, digits and dashes")
    return value


def _version(value: object) -> int:
    if not isinstance(value, int) or not _is_number(value, MAX_VERSION):
        raise ApprovalInvalid(f"a version is a number from 1 to {MAX_VERSION}")
    return value


def _octets(value: object) -> bytes:
    try:
        return base64.b64decode(value.encode("ascii") if isinstance(value, str) else b"!", validate=True)
    except ValueError as error:
        raise ApprovalInvalid("a signature is in base64") from error
