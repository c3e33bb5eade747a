"""Lists of runtime measurements (Linux IMA): parse and replay. What they say is not appraised yet.

    1  every entry has a template that we know, measured into PCR 10
    2  the template hash is that of the template data (or the entry is a violation)
    3  the replay of the whole list, in the bank of the quote, gives the quoted PCR 10
    4  the first entry, and no other, is boot_aggregate: the hash over PCR 0-9 (0-7 before Linux 5.8) of this quote

The binary form (`binary_runtime_measurements`) holds the template data; the text form (`ascii_runtime_measurements`) is
turned back into it, for the templates whose text says everything.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from umec_attest.errors import ImaAggregateMismatch, ImaInvalid, ImaReplayMismatch
from umec_attest.quote import UnanchoredQuote, VerifiedQuote
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["ImaEntry", "parse_ima", "replay_ima", "verify_ima"]

MAX_LIST_SIZE: Final = 64 * 1024 * 1024
"""A busy server has some 100,000 entries of about 150 bytes."""
MAX_FIELD_SIZE: Final = 64 * 1024
"""Paths have at most 4096 bytes, buffers and signatures some thousands."""

IMA_PCR: Final = 10
_TEMPLATES: Final = frozenset({"ima-ng", "ima-ngv2", "ima-sig", "ima-sigv2", "ima-buf", "ima-modsig", "evm-sig"})
"""Templates of the kernel with self-describing fields; the legacy template "ima" has SHA-1 only, and is refused."""
_VIOLATION: Final = bytes(20)
_AGGREGATE: Final = b"boot_aggregate"
_AGGREGATED: Final = (range(10), range(8))


@dataclass(frozen=True, slots=True)
class ImaEntry:
    """One measurement: the template data as it was hashed, and its first two fields, digest and name."""

    template: str
    template_hash: bytes
    data: bytes
    fields: tuple[bytes, ...]

    @property
    def violation(self) -> bool:
        """Whether the file changed while it was measured (the kernel then extends with all ones)."""
        return self.template_hash == _VIOLATION


def parse_ima(data: bytes) -> tuple[ImaEntry, ...]:
    """Parse a list in binary or text form (1, 2).

    Errors: `ImaInvalid`.
    """
    if len(data) > MAX_LIST_SIZE:
        raise ImaInvalid(f"a list of {len(data)} bytes is beyond the limit of {MAX_LIST_SIZE}")
    binary = data[:4] == IMA_PCR.to_bytes(4, "little")
    entries = tuple(_binary_entries(data) if binary else _text_entries(data))
    if not entries:
        raise ImaInvalid("the list is empty")
    for entry in entries:
        recorded = hashlib.sha1(entry.data, usedforsecurity=False).digest()
        if not entry.violation and entry.template_hash != recorded:
            raise ImaInvalid(f"a template hash is not that of its data: {entry.fields[1][:80]!r}")
    return entries


def replay_ima(entries: tuple[ImaEntry, ...], algorithm: HashAlgorithm) -> bytes:
    """Return the PCR that these entries give in a bank."""
    value = bytes(algorithm.digest_size)
    for entry in entries:
        digest = b"\xff" * algorithm.digest_size if entry.violation else algorithm.digest(entry.data)
        value = algorithm.digest(value + digest)
    return value


def verify_ima(entries: tuple[ImaEntry, ...], quote: VerifiedQuote | UnanchoredQuote) -> tuple[ImaEntry, ...]:
    """Return the entries if they give PCR 10 of the quote, and began on this boot (3, 4).

    Errors: `ImaReplayMismatch`, `ImaAggregateMismatch`.
    """
    compared = 0
    for algorithm, bank in quote.pcrs.items():
        if IMA_PCR in bank:
            compared += 1
            if replay_ima(entries, algorithm) != bank[IMA_PCR]:
                raise ImaReplayMismatch(f"the list does not give the quoted PCR 10 ({algorithm.label})")
    if not compared:
        raise ImaReplayMismatch("PCR 10 was not quoted: nothing proves the list")
    _check_aggregate(entries, quote.pcrs)
    return entries


def _check_aggregate(entries: tuple[ImaEntry, ...], pcrs: Mapping[HashAlgorithm, Mapping[int, bytes]]) -> None:
    """4. The aggregate is over the bank of its own hash."""
    if any(_name(entry) == _AGGREGATE for entry in entries[1:]) or _name(entries[0]) != _AGGREGATE:
        raise ImaAggregateMismatch("boot_aggregate must be the first entry, and only that")
    label, _, digest = entries[0].fields[0].partition(b":\0")
    algorithm = next((known for known in pcrs if known.label.encode() == label), None)
    if algorithm is None:
        raise ImaAggregateMismatch(f"boot_aggregate is of the bank {label[:16]!r}, which was not quoted")
    bank = pcrs[algorithm]
    for wanted in _AGGREGATED:
        if all(pcr in bank for pcr in wanted) and algorithm.digest(b"".join(bank[pcr] for pcr in wanted)) == digest:
            return
    raise ImaAggregateMismatch("boot_aggregate is not the hash of the quoted PCRs: the list is of another boot")


def _name(entry: ImaEntry) -> bytes:
    return entry.fields[1].removesuffix(b"\0")


def _binary_entries(data: bytes) -> Iterator[ImaEntry]:
    offset = 0

    def take(size: int) -> bytes:
        nonlocal offset
        if size > len(data) - offset:
            raise ImaInvalid(f"offset {offset}: {size} bytes expected, {len(data) - offset} left")
        offset += size
        return data[offset - size : offset]

    def number() -> int:
        return int.from_bytes(take(4), "little")

    while offset < len(data):
        _check_pcr(number())
        template_hash = take(20)
        template = _template(take(min(number(), MAX_FIELD_SIZE)))
        content = take(min(number(), 16 * MAX_FIELD_SIZE))
        yield ImaEntry(template, template_hash, content, _split(content))


def _split(data: bytes) -> tuple[bytes, ...]:
    fields: list[bytes] = []
    offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        if size > MAX_FIELD_SIZE or offset + 4 + size > len(data):
            raise ImaInvalid("a field of a template is longer than the template")
        fields.append(data[offset + 4 : offset + 4 + size])
        offset += 4 + size
    if len(fields) < 2 or not fields[1].endswith(b"\0"):
        raise ImaInvalid("a template needs a digest and a name")
    return tuple(fields)


def _text_entries(data: bytes) -> Iterator[ImaEntry]:
    """ima-ng "PCR HASH TEMPLATE ALGORITHM:DIGEST PATH", and ima-sig with the signature in hex behind it."""
    if not data.endswith(b"\n"):
        raise ImaInvalid("the last line is cut")
    for line in data[:-1].split(b"\n"):
        pcr, template_hash, name, digest, rest = (*line.split(b" ", 4), b"", b"", b"", b"", b"")[:5]
        _check_pcr(int(pcr) if pcr.isdigit() and len(pcr) < 4 else -1)
        template, hashed = _template(name), _hex(template_hash)
        if template not in ("ima-ng", "ima-sig") or len(hashed) != 20:
            raise ImaInvalid(f"the text form of {template} does not say everything: send the binary list")
        label, colon, value = digest.partition(b":")
        if not colon or not rest:
            raise ImaInvalid("a line needs a digest and a path")
        path, signature = rest, b""
        if template == "ima-sig":
            path, _, text = rest.rpartition(b" ")
            path, signature = (path, _hex(text)) if path else (rest, b"")
        fields = (label + b":\0" + _hex(value), path + b"\0", *((signature,) if template == "ima-sig" else ()))
        joined = b"".join(len(field).to_bytes(4, "little") + field for field in fields)
        yield ImaEntry(template, hashed, joined, fields)


def _check_pcr(pcr: int) -> None:
    if pcr != IMA_PCR:
        raise ImaInvalid(f"an entry of PCR {pcr}: IMA measures into PCR {IMA_PCR}")


def _template(name: bytes) -> str:
    text = name.decode("ascii", "replace")
    if text not in _TEMPLATES:
        raise ImaInvalid(f"unknown template {text[:40]!r}")
    return text


def _hex(text: bytes) -> bytes:
    try:
        value = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise ImaInvalid("hex expected") from None
    if len(value) * 2 != len(text):
        raise ImaInvalid("hex without spaces expected")
    return value
