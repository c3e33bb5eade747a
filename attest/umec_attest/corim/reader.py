"""Read a CoRIM: numbers in comments are the keys of draft-ietf-rats-corim's maps."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from cbor2 import CBORTag

from umec_attest.corim.cbor import load_cbor
from umec_attest.corim.environment import Environment, attestation_key, environment
from umec_attest.corim.errors import CorimInvalid, CorimProfileUnsupported, CorimUnsupported
from umec_attest.corim.shapes import array, integer, mapping, tagged
from umec_attest.errors import ReferenceRefused
from umec_attest.reference.values import AllowedValues, parse_index
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["HASHES", "PARSEC", "CorimDraft", "read_corim"]

PARSEC: Final = "tag:github.com/parallaxsecond,2023-03-03:tpm"
"""The profile of the Parsec service: digests under the PCR's number, and the keys of its TPMs."""

HASHES: Final = {1: HashAlgorithm.SHA256, 7: HashAlgorithm.SHA384, 8: HashAlgorithm.SHA512}
"""IANA's Named Information hash algorithms, as far as a TPM has them as SHA-2 banks."""

_RIM, _SIGNED, _URI, _COMID, _EPOCH = 501, 18, 32, 506, 1


@dataclass(frozen=True, slots=True)
class CorimDraft:
    """What a CoRIM says about PCRs. It proves nothing: a reference signer of ours has to sign it.

    `values`: of every node; `models`: name -> of one firmware build; `image_sha256` (hex), `issued` and `expires` as
    far as it says them; `left_out`: what was read over because it is about something else.
    """

    values: AllowedValues
    models: Mapping[str, AllowedValues]
    image_sha256: str | None
    issued: datetime | None
    expires: datetime | None
    left_out: tuple[str, ...]


_Registers = Mapping[int, Mapping[HashAlgorithm, bytes]]
"""One measurement: PCR -> bank -> digest."""


@dataclass(slots=True)
class _Collected:
    """Measurements as they are collected, by what they are about."""

    measured: dict[Environment, list[_Registers]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def read_corim(data: bytes) -> CorimDraft:
    """Return the draft of an unsigned CoRIM, as the table of this package says.

    Errors: `CorimInvalid`, `CorimUnsupported`, `CorimProfileUnsupported`.
    """
    item = load_cbor(data)
    if isinstance(item, CBORTag) and item.tag == _SIGNED:
        raise CorimUnsupported("a signed CoRIM: take its payload out, look at it, and have a signer of ours sign it")
    rim = mapping(tagged(item, _RIM, "a CoRIM"), "a CoRIM", needed=(0, 1), known=(3, 4, 5), refused=(2,))
    profile = _profile(rim.get(3))
    issued, expires = _validity(rim.get(4))
    collected = _Collected()
    for tag in array(rim[1], "the tags"):
        _read_comid(collected, tag, profile)
    if not collected.measured:
        raise CorimInvalid("it has no reference value")
    if len({(each.class_id, each.vendor) for each in collected.measured}) > 1:
        raise CorimUnsupported("values of more than one class of devices: a reference set is of one image")
    return _draft(collected, issued, expires)


def _draft(collected: _Collected, issued: datetime | None, expires: datetime | None) -> CorimDraft:
    image = next(iter(collected.measured)).image_sha256
    frozen = {each.model: _merged(measured) for each, measured in collected.measured.items()}
    return CorimDraft(
        values=frozen.pop(None, MappingProxyType({})),
        models=MappingProxyType({model: values for model, values in frozen.items() if model is not None}),
        image_sha256=image,
        issued=issued,
        expires=expires,
        left_out=tuple(f"{name}: {count}" for name, count in sorted(collected.left_out.items())),
    )


def _merged(measured: Sequence[_Registers]) -> AllowedValues:
    """Take what several measurements say of one PCR as alternatives, unless they are bound to something else."""
    often = Counter(pcr for registers in measured for pcr in registers)
    values: dict[HashAlgorithm, dict[int, set[bytes]]] = {}
    for registers in measured:
        bound = sum(len(digests) for digests in registers.values()) > 1
        for pcr, digests in registers.items():
            if bound and often[pcr] > 1:
                raise CorimUnsupported(f"alternatives of PCR {pcr} that are bound to other values")
            for algorithm, digest in digests.items():
                values.setdefault(algorithm, {}).setdefault(pcr, set()).add(digest)
    return MappingProxyType(
        {
            algorithm: MappingProxyType({pcr: frozenset(allowed) for pcr, allowed in sorted(bank.items())})
            for algorithm, bank in values.items()
        }
    )


def _profile(value: object) -> str | None:
    if value is None:
        return None
    name = tagged(value, _URI, "the profile") if isinstance(value, CBORTag) and value.tag == _URI else value
    if name != PARSEC:
        raise CorimProfileUnsupported(f"the profile {name!r} is not known"[:200])
    return PARSEC


def _validity(value: object) -> tuple[datetime | None, datetime | None]:
    if value is None:
        return None, None
    found = mapping(value, "the validity", needed=(1,), known=(0,))
    return _time(found.get(0)), _time(found[1])


def _time(value: object) -> datetime | None:
    if value is None:
        return None
    seconds = integer(tagged(value, _EPOCH, "a time"), "a time")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise CorimInvalid("a time beyond all calendars") from None


def _read_comid(collected: _Collected, tag: object, profile: str | None) -> None:
    if not isinstance(tag, CBORTag) or tag.tag != _COMID:
        raise CorimUnsupported("a tag that is no CoMID")
    if not isinstance(tag.value, bytes):
        raise CorimInvalid("a CoMID is a byte string")
    comid = mapping(load_cbor(tag.value), "a CoMID", needed=(1, 4), known=(0, 2), refused=(3,))
    mapping(comid[1], "the identity of a tag", needed=(0,), known=(1,))
    triples = mapping(comid[4], "the triples", known=(0, 3) if profile == PARSEC else (0,), refused=range(1, 64))
    if not triples:
        raise CorimInvalid("a CoMID without a triple")
    for record in array(triples[0], "the reference triples") if 0 in triples else ():
        _read_reference(collected, record, profile)
    for record in array(triples[3], "the key triples") if 3 in triples else ():
        attestation_key(record)
        collected.left_out["attestation keys (nodes enrol theirs)"] += 1


def _read_reference(collected: _Collected, record: object, profile: str | None) -> None:
    parts = array(record, "a reference triple", size=2)
    measured = [_registers(one, profile) for one in array(parts[1], "the measurements")]
    collected.measured.setdefault(environment(parts[0]), []).extend(measured)


def _registers(measurement: object, profile: str | None) -> _Registers:
    if profile == PARSEC:
        found = mapping(measurement, "a measurement", needed=(0, 1), refused=(2,))
        values = mapping(found[1], "the values of a measurement", needed=(2,), refused=range(64))
        return {_pcr(found[0]): _digests(values[2])}
    found = mapping(measurement, "a measurement", needed=(1,), refused=(0, 2))
    values = mapping(found[1], "the values of a measurement", needed=(14,), refused=range(64))
    registers = values[14]
    if not isinstance(registers, Mapping) or not registers:
        raise CorimInvalid("integrity registers are a map with something in it")
    return {_pcr(register): _digests(digests) for register, digests in registers.items()}


def _pcr(value: object) -> int:
    try:
        return parse_index(str(integer(value, "the number of a PCR")))
    except ReferenceRefused as error:
        raise CorimInvalid(error.detail) from None


def _digests(value: object) -> Mapping[HashAlgorithm, bytes]:
    digests: dict[HashAlgorithm, bytes] = {}
    for entry in array(value, "the digests"):
        pair: Sequence[Any] = array(entry, "a digest", size=2)
        algorithm = HASHES.get(pair[0]) if type(pair[0]) is int else None
        if algorithm is None:
            raise CorimUnsupported(f"digests of the algorithm {pair[0]!r} are none of a SHA-2 bank"[:200])
        if algorithm in digests:
            raise CorimInvalid(f"two {algorithm.label} digests of one measurement")
        if not isinstance(pair[1], bytes) or len(pair[1]) != algorithm.digest_size:
            raise CorimInvalid(f"a {algorithm.label} digest has {algorithm.digest_size} bytes")
        digests[algorithm] = pair[1]
    return digests
