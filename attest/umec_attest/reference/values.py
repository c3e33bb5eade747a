"""PCR values on the wire, {"sha256": {"4": [hex, …]}}: of SHA-2 banks, and of PCRs that cannot be reset."""

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_attest.errors import ReferenceEmpty, ReferenceInvalid
from umec_attest.quote import RESETTABLE_PCRS
from umec_attest.tpm.algorithms import SIGNING_HASHES, HashAlgorithm
from umec_attest.tpm.pcr import PCR_COUNT

__all__ = [
    "MAX_ALTERNATIVES",
    "AllowedValues",
    "Wire",
    "WireValues",
    "load_json",
    "match_values",
    "parse_index",
    "parse_values",
    "render_values",
    "summary",
]

MAX_ALTERNATIVES: Final = 1024
"""Values for one PCR; more than that is no reference but a hole."""

AllowedValues = Mapping[HashAlgorithm, Mapping[int, frozenset[bytes]]]
"""Bank -> PCR -> the values that it may have."""
WireValues = dict[str, dict[str, Annotated[list[str], Field(max_length=MAX_ALTERNATIVES)]]]


class Wire(BaseModel):
    """Our own wire formats: every member known, every type exact."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def load_json(payload: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON document in which no member is repeated; raises ValueError or RecursionError."""
    return json.loads(payload, object_pairs_hook=_unique)


def summary(error: Exception) -> str:
    """Return what is wrong with a document, in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:5])
    return str(error) or type(error).__name__


def parse_values(wire: Mapping[str, Mapping[str, Sequence[str]]]) -> AllowedValues:
    """Return the values of a predicate; raises `ReferenceInvalid`, or `ReferenceEmpty` where nothing is expected."""
    values = dict(_bank(label, bank) for label, bank in wire.items())
    if not values or not all(values.values()):
        raise ReferenceEmpty("it expects no value of any PCR: everything would be good")
    return MappingProxyType(values)


def render_values(values: Mapping[HashAlgorithm, Mapping[int, Iterable[bytes]]]) -> dict[str, dict[str, list[str]]]:
    """Return values as `parse_values` reads them."""
    return {
        algorithm.label: {str(pcr): sorted(v.hex() for v in allowed) for pcr, allowed in sorted(bank.items())}
        for algorithm, bank in values.items()
    }


def match_values(
    expected: Mapping[HashAlgorithm, Mapping[int, frozenset[bytes]]],
    quoted: Mapping[HashAlgorithm, Mapping[int, bytes]],
) -> bool:
    """Tell whether all these PCRs were quoted, each with one of its values."""
    return all(
        quoted.get(algorithm, {}).get(pcr) in allowed
        for algorithm, bank in expected.items()
        for pcr, allowed in bank.items()
    )


def parse_index(text: str) -> int:
    """Return the PCR of a member's name; raises `ReferenceInvalid` for what is none, or can be reset."""
    index = _INDICES.get(text)
    if index is None:
        raise ReferenceInvalid(f"{text!r} is no PCR that can carry policy")
    return index


_INDICES: Final = {str(index): index for index in range(PCR_COUNT) if index not in RESETTABLE_PCRS}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def _bank(label: str, bank: Mapping[str, Sequence[str]]) -> tuple[HashAlgorithm, Mapping[int, frozenset[bytes]]]:
    algorithm = next((known for known in SIGNING_HASHES if known.label == label), None)
    if algorithm is None:
        raise ReferenceInvalid(f"{label!r} is no SHA-2 bank")
    values = {parse_index(pcr): frozenset(_value(text, algorithm) for text in texts) for pcr, texts in bank.items()}
    if not all(values.values()):
        raise ReferenceEmpty("a PCR is listed without a value")
    return algorithm, MappingProxyType(values)


def _value(text: str, algorithm: HashAlgorithm) -> bytes:
    if len(text) != 2 * algorithm.digest_size or not set(text) <= set("0123456789abcdef"):
        raise ReferenceInvalid(
            f"a value of the {algorithm.label} bank is {2 * algorithm.digest_size} lower-case hex digits"
        )
    return bytes.fromhex(text)
