"""Canonical event logs of the TCG (CEL, 1.0), in their TLV encoding: type (1 byte), length (4, big-endian), value.

A record has four fields in this order: its number, its register (a PCR, an NV index, or a register of confidential
computing), its digests, and its content, whose type says who wrote it. A digest is of the whole content field, type and
length with it: this is how Google's Confidential Space measures what it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from umec_attest.errors import CanonicalLogInvalid
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PCR_COUNT

__all__ = ["MAX_CEL_SIZE", "CelRecord", "is_canonical_log", "parse_canonical_log", "replay_canonical_log"]

MAX_CEL_SIZE: Final = 1024 * 1024
"""As other logs of a boot; the sample that we know has 4 KB for 18 records."""

_NUMBER, _PCR, _NV_INDEX, _DIGESTS, _REGISTER = 0, 1, 2, 3, 108
_FIRST_CONTENT: Final = 4
_HEAD_SIZE: Final = 5
_NUMBER_SIZE: Final = 8
_REGISTERS: Final = {_PCR: ("pcr", 1), _NV_INDEX: ("nv-index", 4), _REGISTER: ("register", 1)}
"""Field type -> what it is called here, and its size."""
_BEGINNING: Final = bytes([_NUMBER]) + _NUMBER_SIZE.to_bytes(4, "big") + bytes(_NUMBER_SIZE)
_ALGORITHMS: Final = {int(algorithm): algorithm for algorithm in HashAlgorithm}


@dataclass(frozen=True, slots=True)
class CelRecord:
    """One record. `kind` is "pcr", "nv-index" or "register", `index` which one; `content` is of `content_type`."""

    kind: str
    index: int
    digests: Mapping[HashAlgorithm, bytes]
    content_type: int
    content: bytes

    def covered(self, algorithm: HashAlgorithm) -> bool:
        """Tell whether the digest of that bank is of the content."""
        field = bytes([self.content_type]) + len(self.content).to_bytes(4, "big") + self.content
        return self.digests.get(algorithm) == algorithm.digest(field)


def is_canonical_log(data: bytes) -> bool:
    """Tell whether the bytes begin as a canonical log does: with record 0."""
    return data.startswith(_BEGINNING)


def parse_canonical_log(data: bytes) -> tuple[CelRecord, ...]:
    """Parse a log, whose records are numbered from 0; `CanonicalLogInvalid` if it is none, or empty, or too large."""
    if len(data) > MAX_CEL_SIZE:
        raise CanonicalLogInvalid(f"a log of {len(data)} bytes is beyond the limit of {MAX_CEL_SIZE}")
    if not data:
        raise CanonicalLogInvalid("the canonical log is empty")
    records: list[CelRecord] = []
    fields = _split(bytes(data))
    if len(fields) % 4:
        raise CanonicalLogInvalid("the last record is not complete")
    for at in range(0, len(fields), 4):
        records.append(_record(len(records), fields[at : at + 4]))
    return tuple(records)


def replay_canonical_log(records: Sequence[CelRecord], algorithm: HashAlgorithm) -> Mapping[tuple[str, int], bytes]:
    """Return the value of each register that the log measures into, if it was zero before, by kind and index.

    Errors: `CanonicalLogInvalid` for a record without a digest of that bank.
    """
    values: dict[tuple[str, int], bytes] = {}
    for number, record in enumerate(records):
        digest = record.digests.get(algorithm)
        if digest is None:
            raise CanonicalLogInvalid(f"record {number} has no {algorithm.label} digest")
        register = record.kind, record.index
        values[register] = algorithm.digest(values.get(register, bytes(algorithm.digest_size)) + digest)
    return MappingProxyType(values)


def _split(data: bytes) -> list[tuple[int, bytes]]:
    """Return the fields that fill `data`: type and value."""
    fields: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        start = at + _HEAD_SIZE
        end = start + int.from_bytes(data[at + 1 : start], "big")
        if end > len(data):
            raise CanonicalLogInvalid(f"the field at offset {at} goes beyond the end")
        fields.append((data[at], data[start:end]))
        at = end
    return fields


def _record(number: int, fields: Sequence[tuple[int, bytes]]) -> CelRecord:
    (first, count), (register, index), (third, digests), (content_type, content) = fields
    if (first, count) != (_NUMBER, number.to_bytes(_NUMBER_SIZE, "big")):
        raise CanonicalLogInvalid(f"record {number} does not begin with its number")
    kind, size = _REGISTERS.get(register, ("", -1))
    if len(index) != size:
        raise CanonicalLogInvalid(f"record {number} names no register")
    position = int.from_bytes(index, "big")
    if kind == "pcr" and position >= PCR_COUNT:
        raise CanonicalLogInvalid(f"record {number}: there is no PCR {position}")
    if third != _DIGESTS or content_type < _FIRST_CONTENT:
        raise CanonicalLogInvalid(f"record {number} has no digests, or no content")
    return CelRecord(kind, position, _digests(number, digests), content_type, content)


def _digests(number: int, data: bytes) -> Mapping[HashAlgorithm, bytes]:
    found: dict[HashAlgorithm, bytes] = {}
    for identifier, digest in _split(data):
        algorithm = _ALGORITHMS.get(identifier)
        if algorithm is None or algorithm in found or len(digest) != algorithm.digest_size:
            raise CanonicalLogInvalid(f"record {number} has a digest that is unknown, repeated or of a wrong size")
        found[algorithm] = digest
    if not found:
        raise CanonicalLogInvalid(f"record {number} has no digest")
    return MappingProxyType(found)
