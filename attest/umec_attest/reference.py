"""Reference sets: which PCR values a node image may have, said by a pinned signer, for a limited time.

A reference set is an in-toto Statement v1 in a DSSE envelope, predicate type `urn:umec:reference-set:v1`.

    1  a pinned signer signed it
    2  it is a reference set: every field known, every value of its bank's size, SHA-2 banks, no resettable PCR
    3  it expects something
    4  it was issued already, and has not expired
    5  it is not older than one that was in use
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from umec_attest.errors import (
    ReferenceEmpty,
    ReferenceExpired,
    ReferenceInvalid,
    ReferenceNotYetValid,
    ReferenceRollback,
    ReferenceSignature,
)
from umec_attest.quote import RESETTABLE_PCRS
from umec_attest.tpm.algorithms import SIGNING_HASHES, HashAlgorithm
from umec_attest.tpm.pcr import PCR_COUNT
from umec_core import dsse

__all__ = ["PREDICATE_TYPE", "ReferenceSet", "sign_reference_set", "verify_reference_set"]

PREDICATE_TYPE: Final = "urn:umec:reference-set:v1"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"

MAX_ENVELOPE_SIZE: Final = 1024 * 1024
"""A value is 64 hex digits: thousands of alternatives fit."""
MAX_ALTERNATIVES: Final = 1024
"""Values for one PCR; more than that is no reference but a hole."""
CLOCK_SKEW: Final = timedelta(minutes=1)
"""How far the signer's clock may be ahead of ours."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Digest(_Wire):
    sha256: _Sha256


class _Subject(_Wire):
    name: _Name
    digest: _Digest


class _Predicate(_Wire):
    version: Annotated[int, Field(ge=1, le=2**53)]
    issued: Annotated[AwareDatetime, Field(strict=False)]
    expires: Annotated[AwareDatetime, Field(strict=False)]
    pcrs: dict[str, dict[str, Annotated[list[str], Field(max_length=MAX_ALTERNATIVES)]]]
    ignored: dict[str, Annotated[str, Field(min_length=1, max_length=500)]] = Field(default_factory=dict)


class _Statement(_Wire):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate_type: Literal["urn:umec:reference-set:v1"] = Field(alias="predicateType")
    predicate: _Predicate


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """What a pinned signer expects of the node image `name`. Only `verify_reference_set` makes one.

    `pcrs`: bank -> PCR -> allowed values; `ignored`: PCR -> why it may have any value; `sha256` (hex) is that of the
    statement, `subject_sha256` (hex) that of the image.
    """

    name: str
    version: int
    issued: datetime
    expires: datetime
    pcrs: Mapping[HashAlgorithm, Mapping[int, frozenset[bytes]]]
    ignored: Mapping[int, str]
    subject_sha256: str
    sha256: str


def verify_reference_set(
    envelope: bytes, *, signers: Sequence[EllipticCurvePublicKey], now: datetime, minimum_version: int
) -> ReferenceSet:
    """Return the reference set of a DSSE envelope.

    `minimum_version` is that of the newest set for this image that was ever accepted (0: none). Errors:
    `ReferenceInvalid`, `ReferenceSignature`, `ReferenceEmpty`, `ReferenceNotYetValid`, `ReferenceExpired`,
    `ReferenceRollback`.
    """
    if len(envelope) > MAX_ENVELOPE_SIZE:
        raise ReferenceInvalid(f"an envelope of {len(envelope)} bytes is beyond the limit of {MAX_ENVELOPE_SIZE}")
    try:
        payload = dsse.verify(envelope, keys=signers, payload_type=dsse.IN_TOTO)  # 1
    except dsse.DsseError as error:
        raise ReferenceSignature(
            f"no pinned signer signed this reference set ({error.code}: {error.detail})"
        ) from error
    reference = _parse(payload)  # 2, 3
    if now + CLOCK_SKEW < reference.issued:  # 4
        raise ReferenceNotYetValid(f"issued at {reference.issued:%Y-%m-%dT%H:%M:%SZ}, which is in the future")
    if now >= reference.expires:
        raise ReferenceExpired(
            f"the reference set of {reference.name} expired at {reference.expires:%Y-%m-%dT%H:%M:%SZ}",
            advice="Predict the values of the current image again, and sign a new version.",
        )
    if reference.version < minimum_version:  # 5
        raise ReferenceRollback(f"version {reference.version}, but version {minimum_version} was in use already")
    return reference


def sign_reference_set(
    *,
    name: str,
    subject_sha256: str,
    version: int,
    issued: datetime,
    expires: datetime,
    pcrs: Mapping[HashAlgorithm, Mapping[int, Iterable[bytes]]],
    ignored: Mapping[int, str],
    key: EllipticCurvePrivateKey,
) -> bytes:
    """Return a DSSE envelope that `verify_reference_set` accepts (from `issued` until `expires`).

    Errors: `ReferenceInvalid`, `ReferenceEmpty`: what would be refused is not signed.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subject_sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "version": version,
            "issued": _time(issued),
            "expires": _time(expires),
            "pcrs": {
                algorithm.label: {str(pcr): sorted(v.hex() for v in values) for pcr, values in sorted(bank.items())}
                for algorithm, bank in pcrs.items()
            },
            "ignored": {str(pcr): reason for pcr, reason in sorted(ignored.items())},
        },
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    _parse(payload)
    return dsse.sign(payload, dsse.IN_TOTO, key)


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse(payload: bytes) -> ReferenceSet:
    try:
        statement = _Statement.model_validate(json.loads(payload, object_pairs_hook=_unique))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ReferenceInvalid(f"not a reference set: {_summary(error)}") from None
    predicate = statement.predicate
    if predicate.issued >= predicate.expires:
        raise ReferenceInvalid("it expires before it is issued")
    ignored = {_index(pcr): reason for pcr, reason in predicate.ignored.items()}
    pcrs = dict(_bank(label, bank) for label, bank in predicate.pcrs.items())
    if not pcrs or not all(pcrs.values()):
        raise ReferenceEmpty("it expects no value of any PCR: everything would be good")
    both = sorted(ignored.keys() & {pcr for bank in pcrs.values() for pcr in bank})
    if both:
        raise ReferenceInvalid(f"PCRs that are expected and ignored: {both}")
    return ReferenceSet(
        name=statement.subject[0].name,
        version=predicate.version,
        issued=predicate.issued.astimezone(UTC),
        expires=predicate.expires.astimezone(UTC),
        pcrs=MappingProxyType(pcrs),
        ignored=MappingProxyType(ignored),
        subject_sha256=statement.subject[0].digest.sha256,
        sha256=hashlib.sha256(payload).hexdigest(),
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def _summary(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:5])
    return str(error) or type(error).__name__


def _bank(label: str, bank: Mapping[str, Sequence[str]]) -> tuple[HashAlgorithm, Mapping[int, frozenset[bytes]]]:
    algorithm = next((known for known in SIGNING_HASHES if known.label == label), None)
    if algorithm is None:
        raise ReferenceInvalid(f"{label!r} is no SHA-2 bank")
    values = {_index(pcr): frozenset(_value(text, algorithm) for text in texts) for pcr, texts in bank.items()}
    if not all(values.values()):
        raise ReferenceEmpty("a PCR is listed without a value")
    return algorithm, MappingProxyType(values)


def _index(text: str) -> int:
    index = _INDICES.get(text)
    if index is None:
        raise ReferenceInvalid(f"{text!r} is no PCR that can carry policy")
    return index


_INDICES: Final = {str(index): index for index in range(PCR_COUNT) if index not in RESETTABLE_PCRS}


def _value(text: str, algorithm: HashAlgorithm) -> bytes:
    if len(text) != 2 * algorithm.digest_size or not set(text) <= set("0123456789abcdef"):
        raise ReferenceInvalid(
            f"a value of the {algorithm.label} bank is {2 * algorithm.digest_size} lower-case hex digits"
        )
    return bytes.fromhex(text)
