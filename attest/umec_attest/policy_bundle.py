"""Signed appraisal policies: a policy set with its schema and a version, said by a pinned signer.

A bundle is an in-toto Statement v1 in a DSSE envelope, predicate type `urn:umec:policy-bundle:v1`, subject `appraisal`.

    1  a pinned signer signed it
    2  it is a bundle of appraisal policies, every field known, and the digest in it is that of its policies
    3  the policies fit their schema
    4  it is not older than one that was in use (`check_successor`)
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from pydantic import Field, ValidationError

from umec_attest.errors import AttestError
from umec_attest.reference.values import Wire, load_json, summary
from umec_core import dsse
from umec_core.errors import Kind
from umec_policies import PolicySet

__all__ = [
    "PolicyBundle",
    "PolicyBundleInvalid",
    "PolicyBundleMissing",
    "PolicyBundleRefused",
    "PolicyBundleRollback",
    "PolicyBundleSignature",
    "check_successor",
    "sign_policy_bundle",
    "verify_policy_bundle",
]

_PREDICATE: Final = "urn:umec:policy-bundle:v1"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"


class PolicyBundleRefused(AttestError):
    """Signed policies that may not be used."""

    code = "policy-bundle-refused"


class PolicyBundleInvalid(PolicyBundleRefused):
    """A statement that is no bundle of appraisal policies."""

    code = "policy-bundle-invalid"
    kind = Kind.INVALID


class PolicyBundleSignature(PolicyBundleRefused):
    """Policies that no pinned signer signed."""

    code = "policy-bundle-signature"


class PolicyBundleRollback(PolicyBundleRefused):
    """Policies older than some that were in use already, or others of the same version."""

    code = "policy-bundle-rollback"


class PolicyBundleMissing(PolicyBundleRefused):
    """Signed policies were in use, and none are given: whoever takes them away does not get the built-in ones."""

    code = "policy-bundle-missing"


class _Digest(Wire):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Subject(Wire):
    name: Literal["appraisal"]
    digest: _Digest


class _Predicate(Wire):
    version: Annotated[int, Field(ge=1, le=2**53)]
    policies: str
    cedar_schema: str = Field(alias="schema")


class _Statement(Wire):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate_type: Literal["urn:umec:policy-bundle:v1"] = Field(alias="predicateType")
    predicate: _Predicate


@dataclass(frozen=True, slots=True)
class PolicyBundle:
    """Appraisal policies of a version. Only `verify_policy_bundle` makes one; `sha256` (hex) is of the statement."""

    version: int
    policies: PolicySet
    sha256: str


def verify_policy_bundle(envelope: bytes, *, signers: Sequence[EllipticCurvePublicKey]) -> PolicyBundle:
    """Return the bundle of a DSSE envelope; whether it may follow the last one, `check_successor` says.

    Errors: `PolicyBundleSignature`, `PolicyBundleInvalid`, `PolicyInvalid`.
    """
    try:
        payload = dsse.verify(envelope, keys=signers, payload_type=dsse.IN_TOTO)  # 1
    except dsse.DsseError as error:
        raise PolicyBundleSignature(f"no pinned signer signed these policies ({error.code}: {error.detail})") from error
    return _parse(payload)


def check_successor(bundle: PolicyBundle, *, version: int, sha256: str) -> None:
    """Refuse a bundle that may not follow the one with this version and statement (4); `PolicyBundleRollback`."""
    if bundle.version < version:
        raise PolicyBundleRollback(f"version {bundle.version}, but version {version} was in use already")
    if bundle.version == version and bundle.sha256 != sha256:
        raise PolicyBundleRollback(f"other policies of version {version} were in use already")


def sign_policy_bundle(policies: PolicySet, *, version: int, key: EllipticCurvePrivateKey) -> bytes:
    """Return a DSSE envelope that `verify_policy_bundle` accepts; `PolicyBundleInvalid` for a version that is none."""
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": "appraisal", "digest": {"sha256": policies.digest}}],
        "predicateType": _PREDICATE,
        "predicate": {"version": version, "policies": policies.policies_text, "schema": policies.schema_text},
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    _parse(payload)
    return dsse.sign(payload, dsse.IN_TOTO, key)


def _parse(payload: bytes) -> PolicyBundle:
    try:
        statement = _Statement.model_validate(load_json(payload))  # 2
    except (ValidationError, ValueError, RecursionError) as error:
        raise PolicyBundleInvalid(f"no bundle of appraisal policies: {summary(error)}") from None
    predicate = statement.predicate
    policies = PolicySet(predicate.policies, predicate.cedar_schema)  # 3
    if policies.digest != statement.subject[0].digest.sha256:
        raise PolicyBundleInvalid("the digest in it is not that of its policies")
    return PolicyBundle(predicate.version, policies, hashlib.sha256(payload).hexdigest())
