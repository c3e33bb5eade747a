"""Approvals: an owner's signature that a state of an image may open what was sealed for that image.

What is signed is what TPM2_PolicyAuthorize takes, so that the TPM checks it, whatever software asks:

    policy      PolicyPCR(values of the image) and PolicyNV(counter at most `version`)
    reference   SHA-256 of the image's name: an approval for one image opens nothing of another

An approval is a JSON object. All of it is covered by the signature, because policy and reference are computed from it.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from umec_attest.digests import parse_pcr_values
from umec_attest.errors import ApprovalInvalid, ApprovalSignature, AttestError
from umec_attest.quote import RESETTABLE_PCRS
from umec_attest.sealed.counter import counter_name
from umec_attest.sealed.policies import EMPTY, Comparison, policy_nv, policy_pcr
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.public import Attributes, EccParameters, Public, RsaParameters, SchemeChoice
from umec_attest.tpm.signature import EcdsaSignature, RsaSignature, Scheme, parse_signature
from umec_attest.tpm.verify import check_key_strength, verify_signature
from umec_attest.tpm.wire import u64

__all__ = ["Approval", "OwnerKey", "approval_reference", "owner_public", "sign_approval", "verify_approval"]

MAX_APPROVAL: Final = 16 * 1024
"""Bytes; one with all 24 PCRs and an RSA signature has some 3 KB."""
MAX_VERSION: Final = 2**32 - 1
"""A counter is counted up one by one: nobody gets near it."""

_REFERENCE: Final = b"umec sealed for\0"
_SHA256: Final = HashAlgorithm.SHA256
_CURVES: Final = {"secp256r1": 0x0003, "secp384r1": 0x0004}

OwnerKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
OwnerPrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def _octets(text: object) -> bytes:
    return base64.b64decode(str(text).encode(), validate=True)  # ValueError, which pydantic takes


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    image: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True)]
    pcrs: dict[str, Any]
    signature: Annotated[bytes, BeforeValidator(_octets)]


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
    _, values = _parsed(json.dumps(content).encode())
    check_key_strength(owner_public(key.public_key()))
    message = _policy(version, values) + approval_reference(image)
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
    wire, values = _parsed(data)
    public, policy, reference = owner_public(owner), _policy(wire.version, values), approval_reference(wire.image)
    check_key_strength(public)
    try:
        verify_signature(public, parse_signature(wire.signature), policy + reference)
    except AttestError as error:
        raise ApprovalSignature("this owner has not signed the approval") from error
    return Approval(wire.image, wire.version, MappingProxyType(values), policy, reference, wire.signature)


def approval_reference(image: str) -> bytes:
    """Return the policyRef that ties an approval to what was sealed for an image."""
    return _SHA256.digest(_REFERENCE + image.encode())


def owner_public(key: OwnerKey) -> Public:
    """Return the owner's key as the TPM loads it: its Name is part of the policy of what is sealed.

    Errors: `ApprovalInvalid` for a curve that is neither P-256 nor P-384.
    """
    attributes = Attributes.SIGN | Attributes.USER_WITH_AUTH
    numbers = key.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
        exponent = 0 if numbers.e == 65537 else numbers.e
        scheme = SchemeChoice(Scheme.RSASSA, _SHA256)
        return Public(_SHA256, attributes, b"", RsaParameters(None, scheme, len(modulus) * 8, exponent, modulus))
    curve = _CURVES.get(numbers.curve.name)
    if curve is None:
        raise ApprovalInvalid(f"an owner's key is RSA, or on P-256 or P-384, not on {numbers.curve.name}")
    size = (numbers.curve.key_size + 7) // 8
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    scheme = SchemeChoice(Scheme.ECDSA, _SHA256)
    return Public(_SHA256, attributes, b"", EccParameters(None, scheme, curve, None, x, y))


def _policy(version: int, pcrs: Mapping[int, bytes]) -> bytes:
    return policy_nv(policy_pcr(EMPTY, pcrs), counter_name(), u64(version), Comparison.AT_MOST)


def _parsed(data: bytes) -> tuple[_Wire, dict[int, bytes]]:
    if len(data) > MAX_APPROVAL:
        raise ApprovalInvalid(f"an approval has at most {MAX_APPROVAL} bytes")
    try:
        wire = _Wire.model_validate_json(data)
        banks = parse_pcr_values(wire.pcrs)
    except (ValidationError, AttestError) as error:
        raise ApprovalInvalid("this is no approval") from error
    values = dict(banks.get(_SHA256, {}))
    if set(banks) != {_SHA256} or not values:
        raise ApprovalInvalid("an approval names values of the SHA-256 bank")
    if RESETTABLE_PCRS & values.keys():
        raise ApprovalInvalid("PCRs 16 and 23 can be reset, and prove nothing")
    return wire, values
