"""A reference set is an in-toto Statement v1 in a DSSE envelope, predicate type `urn:umec:reference-set:v1`.

1  a pinned signer signed it
2  it is a reference set: every field known, every value of its bank's size, SHA-2 banks, no resettable PCR, no PCR
   with two meanings, no grace that is too long
3  it expects something
4  it was issued already, and has not expired
5  it is not older than one that was in use
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from pydantic import AwareDatetime, Field, ValidationError

from umec_attest.errors import (
    ReferenceExpired,
    ReferenceInvalid,
    ReferenceNotYetValid,
    ReferenceRollback,
    ReferenceSignature,
)
from umec_attest.ima import IMA_PCR, RuntimePolicy, parse_runtime_policy
from umec_attest.reference.grace import Grace, WireGrace, parse_grace, render_grace
from umec_attest.reference.models import FirmwareModel, WireModels, parse_models, render_models
from umec_attest.reference.owner import WireOwner, parse_owner, render_owner
from umec_attest.reference.stages import Stages, WireStages, parse_stages, render_stages
from umec_attest.reference.values import (
    AllowedValues,
    Wire,
    WireValues,
    load_json,
    parse_index,
    parse_values,
    render_values,
    summary,
)
from umec_attest.sealed.owners import OwnerKey
from umec_attest.starts.entry import STARTS_PCR
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core import dsse

__all__ = [
    "PREDICATE_TYPE",
    "ReferenceSet",
    "check_valid_at",
    "read_reference_set",
    "sign_reference_set",
    "verify_reference_set",
]

PREDICATE_TYPE: Final = "urn:umec:reference-set:v1"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"

MAX_ENVELOPE_SIZE: Final = 16 * 1024 * 1024
"""A runtime policy of 60,000 files, which is a whole distribution with its modules, is 12 MB in base64."""
CLOCK_SKEW: Final = timedelta(minutes=1)
"""How far the signer's clock may be ahead of ours."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class _Digest(Wire):
    sha256: _Sha256


class _Subject(Wire):
    name: _Name
    digest: _Digest


class _Predicate(Wire):
    version: Annotated[int, Field(ge=1, le=2**53)]
    issued: Annotated[AwareDatetime, Field(strict=False)]
    expires: Annotated[AwareDatetime, Field(strict=False)]
    pcrs: WireValues
    ignored: dict[str, Annotated[str, Field(min_length=1, max_length=500)]] = Field(default_factory=dict)
    models: WireModels = Field(default_factory=dict)
    runtime: dict[str, Any] | None = None
    starts: bool = False
    grace: WireGrace | None = None
    owner: WireOwner | None = None
    stages: WireStages = Field(default_factory=dict)


class _Statement(Wire):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate_type: Literal["urn:umec:reference-set:v1"] = Field(alias="predicateType")
    predicate: _Predicate


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """What a pinned signer expects of the node image `name`. Only `read_reference_set` makes one.

    `pcrs`: bank -> PCR -> allowed values; `ignored`: PCR -> why it may have any value; `models`: name -> firmware build
    (empty: `pcrs` says what the firmware is); `runtime`: what may run after the boot (None: PCR 10 is one like any
    other); `starts`: whether the node extends PCR 15 with the applications that it starts (`umec_attest.starts`);
    `grace`: which older versions count beside it (None: it replaces all at once); `owner`: whose approvals node keys
    have to be bound to (None: they need not be bound); `stages`: what is measured into a PCR (for findings alone);
    `sha256` (hex) is that of the statement, `subject_sha256` (hex) that of the image.
    """

    name: str
    version: int
    issued: datetime
    expires: datetime
    pcrs: AllowedValues
    ignored: Mapping[int, str]
    models: Mapping[str, FirmwareModel]
    runtime: RuntimePolicy | None
    starts: bool
    grace: Grace | None
    owner: OwnerKey | None
    stages: Stages
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
    reference = read_reference_set(envelope, signers=signers)
    check_valid_at(reference, now)
    if reference.version < minimum_version:  # 5
        raise ReferenceRollback(f"version {reference.version}, but version {minimum_version} was in use already")
    return reference


def read_reference_set(envelope: bytes, *, signers: Sequence[EllipticCurvePublicKey]) -> ReferenceSet:
    """Return the reference set that a pinned signer signed (1 to 3): the same at any time, so the work is done once.

    It counts only while `check_valid_at` says so. Errors: `ReferenceInvalid`, `ReferenceSignature`, `ReferenceEmpty`.
    """
    if len(envelope) > MAX_ENVELOPE_SIZE:
        raise ReferenceInvalid(f"an envelope of {len(envelope)} bytes is beyond the limit of {MAX_ENVELOPE_SIZE}")
    try:
        payload = dsse.verify(envelope, keys=signers, payload_type=dsse.IN_TOTO)  # 1
    except dsse.DsseError as error:
        raise ReferenceSignature(
            f"no pinned signer signed this reference set ({error.code}: {error.detail})"
        ) from error
    return _parse(payload)  # 2, 3


def check_valid_at(reference: ReferenceSet, now: datetime) -> None:
    """Raise `ReferenceNotYetValid` or `ReferenceExpired` unless a reference set counts now (4)."""
    if now + CLOCK_SKEW < reference.issued:
        raise ReferenceNotYetValid(f"issued at {reference.issued:%Y-%m-%dT%H:%M:%SZ}, which is in the future")
    if now >= reference.expires:
        raise ReferenceExpired(
            f"the reference set of {reference.name} expired at {reference.expires:%Y-%m-%dT%H:%M:%SZ}",
            advice="Predict the values of the current image again, and sign a new version.",
        )


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
    models: Mapping[str, FirmwareModel] = MappingProxyType({}),
    runtime: RuntimePolicy | None = None,
    starts: bool = False,
    grace: Grace | None = None,
    owner: OwnerKey | None = None,
    stages: Stages = MappingProxyType({}),
) -> bytes:
    """Return a DSSE envelope that `verify_reference_set` accepts (from `issued` until `expires`).

    Errors: `ReferenceInvalid`, `ReferenceEmpty`: what would be refused is not signed.
    """
    predicate: dict[str, Any] = {
        "version": version,
        "issued": _time(issued),
        "expires": _time(expires),
        "pcrs": render_values(pcrs),
        "ignored": {str(pcr): reason for pcr, reason in sorted(ignored.items())},
    }
    if models:
        predicate["models"] = render_models(models)
    if runtime is not None:
        predicate["runtime"] = runtime.to_json()
    if starts:
        predicate["starts"] = True
    if grace is not None:
        predicate["grace"] = render_grace(grace)
    if owner is not None:
        predicate["owner"] = render_owner(owner)
    if stages:
        predicate["stages"] = render_stages(stages)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subject_sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    _parse(payload)
    return dsse.sign(payload, dsse.IN_TOTO, key)


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse(payload: bytes) -> ReferenceSet:
    try:
        statement = _Statement.model_validate(load_json(payload))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ReferenceInvalid(f"not a reference set: {summary(error)}") from None
    predicate = statement.predicate
    if predicate.issued >= predicate.expires:
        raise ReferenceInvalid("it expires before it is issued")
    ignored = {parse_index(pcr): reason for pcr, reason in predicate.ignored.items()}
    pcrs = parse_values(predicate.pcrs)
    models = parse_models(predicate.models)
    runtime = None if predicate.runtime is None else parse_runtime_policy(predicate.runtime)
    later = {IMA_PCR} if runtime is not None else set()
    _check_one_meaning(pcrs, ignored, models, later | ({STARTS_PCR} if predicate.starts else set()))
    grace = parse_grace(predicate.grace, version=predicate.version, issued=predicate.issued, expires=predicate.expires)
    return ReferenceSet(
        name=statement.subject[0].name,
        version=predicate.version,
        issued=predicate.issued.astimezone(UTC),
        expires=predicate.expires.astimezone(UTC),
        pcrs=pcrs,
        ignored=MappingProxyType(ignored),
        models=models,
        runtime=runtime,
        starts=predicate.starts,
        grace=grace,
        owner=parse_owner(predicate.owner),
        stages=parse_stages(predicate.stages, pcrs),
        subject_sha256=statement.subject[0].digest.sha256,
        sha256=hashlib.sha256(payload).hexdigest(),
    )


def _check_one_meaning(
    pcrs: AllowedValues,
    ignored: Mapping[int, str],
    models: Mapping[str, FirmwareModel],
    later: AbstractSet[int],
) -> None:
    """A PCR is expected of every node, or of a model, or ignored, or `later`: two of them leave open which one counts.

    `later` are those that grow after the boot, each with a list of its own: IMA's, and that of starts.
    """
    meanings = (
        {pcr for bank in pcrs.values() for pcr in bank},
        {pcr for model in models.values() for bank in model.pcrs.values() for pcr in bank},
        set(ignored),
        later,
    )
    twice = sorted(pcr for pcr in set().union(*meanings) if sum(pcr in meaning for meaning in meanings) > 1)
    if twice:
        raise ReferenceInvalid(
            f"PCRs that are said to be two of expected, of a model, ignored and extended later: {twice}"
        )
