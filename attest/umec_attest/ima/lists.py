"""Lists of runtime measurements (Linux IMA): parse and replay. What they say is not appraised yet.

    1  every entry has a template that we know, measured into PCR 10
    2  the template hash is that of the template data (or the entry is a violation)
    3  the replay of the whole list, in the bank of the quote, gives the quoted PCR 10
    4  the first entry, and no other, is boot_aggregate: the hash over PCR 0-9 (0-7 before Linux 5.8) of this quote

The binary form (`binary_runtime_measurements`) holds the template data; the text form (`ascii_runtime_measurements`) is
turned back into it, for the templates whose text says everything.
"""

import hashlib
import struct
from binascii import a2b_hex
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
MAX_DATA_SIZE: Final = 16 * MAX_FIELD_SIZE
"""No template has more than 9 fields."""

IMA_PCR: Final = 10
_TEMPLATES: Final = frozenset({"ima-ng", "ima-ngv2", "ima-sig", "ima-sigv2", "ima-buf", "ima-modsig", "evm-sig"})
"""Templates of the kernel with self-describing fields; the legacy template "ima" has SHA-1 only, and is refused."""
_KNOWN: Final = {name.encode(): name for name in _TEMPLATES}
_KNOWN_TEXT: Final = {b"ima-ng": "ima-ng", b"ima-sig": "ima-sig"}
"""Of the others, the text form does not say everything."""
_LONGEST: Final = max(map(len, _KNOWN))
_HEAD: Final = struct.Struct("<I20sI")
_VIOLATION: Final = bytes(20)
"""The template hash of a file that changed while it was measured: the kernel extends with all ones."""
_AGGREGATE: Final = b"boot_aggregate"
_AGGREGATED: Final = (range(10), range(8))


@dataclass(frozen=True, slots=True)
class ImaEntry:
    """One measurement: the template data as it was hashed, and its first two fields, digest and name."""

    template: str
    template_hash: bytes
    data: bytes
    fields: tuple[bytes, ...]


def parse_ima(data: bytes) -> tuple[ImaEntry, ...]:
    """Parse a list in binary or text form (1, 2).

    Errors: `ImaInvalid`.
    """
    if len(data) > MAX_LIST_SIZE:
        raise ImaInvalid(f"a list of {len(data)} bytes is beyond the limit of {MAX_LIST_SIZE}")
    binary = data[:4] == IMA_PCR.to_bytes(4, "little")
    entries = tuple(_binary_entries(data) if binary else _text_entries(data))
    sha1 = hashlib.sha1  # the kernel always records this one, whatever the bank; what counts is the replay
    for entry in entries:
        recorded = entry.template_hash
        if recorded != sha1(entry.data, usedforsecurity=False).digest() and recorded != _VIOLATION:
            raise ImaInvalid(f"a template hash is not that of its data: {entry.fields[1][:80]!r}")
    return entries


def replay_ima(entries: tuple[ImaEntry, ...], algorithm: HashAlgorithm) -> bytes:
    """Return the PCR that these entries give in a bank."""
    value, violated, hashed = bytes(algorithm.digest_size), b"\xff" * algorithm.digest_size, algorithm.constructor
    for entry in entries:
        digest = violated if entry.template_hash == _VIOLATION else hashed(entry.data).digest()
        value = hashed(value + digest).digest()
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
    """An entry: u32 PCR, 20 bytes template hash, size and name of the template, size and data; little-endian."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _HEAD.size:
            raise _cut(offset, _HEAD.size, end)
        pcr, template_hash, size = _HEAD.unpack_from(data, offset)
        if pcr != IMA_PCR:
            raise _wrong_pcr(pcr)
        offset += _HEAD.size
        content = offset + size + 4
        template = _KNOWN.get(data[offset : content - 4]) if size <= _LONGEST else None
        if template is None:
            raise _unknown_template(data[offset : offset + min(size, _LONGEST)])
        offset = content + int.from_bytes(data[content - 4 : content], "little")
        if offset > end or offset - content > MAX_DATA_SIZE:
            raise _cut(content, offset - content, end)
        template_data = data[content:offset]
        yield ImaEntry(template, template_hash, template_data, _split(template_data))


def _split(data: bytes) -> tuple[bytes, ...]:
    fields: list[bytes] = []
    offset, end = 0, len(data)
    while offset < end:
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "little")
        if offset > end or offset - start > MAX_FIELD_SIZE:
            raise ImaInvalid("a field of a template is longer than the template")
        fields.append(data[start:offset])
    if len(fields) < 2 or fields[1][-1:] != b"\0":
        raise ImaInvalid("a template needs a digest and a name")
    return tuple(fields)


def _text_entries(data: bytes) -> Iterator[ImaEntry]:
    """ima-ng "PCR HASH TEMPLATE ALGORITHM:DIGEST PATH", and ima-sig with the signature in hex behind it."""
    if not data.endswith(b"\n"):
        raise ImaInvalid("the last line is cut")
    for line in data[:-1].split(b"\n"):
        pcr, template_hash, name, digest, rest = (*line.split(b" ", 4), b"", b"", b"", b"", b"")[:5]
        if pcr != b"10":
            raise _wrong_pcr(int(pcr) if pcr.isdigit() and len(pcr) < 4 else -1)
        template = _KNOWN_TEXT.get(name)
        if template is None:
            raise ImaInvalid(f"the text form of {name[:40]!r} does not say everything: send the binary list")
        label, colon, value = digest.partition(b":")
        if not colon or not rest:
            raise ImaInvalid("a line needs a digest and a path")
        fields: tuple[bytes, ...]
        if template == "ima-sig":
            path, _, text = rest.rpartition(b" ")
            path, signature = (path, _hex(text)) if path else (rest, b"")
            fields = (label + b":\0" + _hex(value), path + b"\0", signature)
        else:
            fields = (label + b":\0" + _hex(value), rest + b"\0")
        joined = b"".join([part for field in fields for part in (len(field).to_bytes(4, "little"), field)])
        yield ImaEntry(template, _hex(template_hash), joined, fields)


def _wrong_pcr(pcr: int) -> ImaInvalid:
    return ImaInvalid(f"an entry of PCR {pcr}: IMA measures into PCR {IMA_PCR}")


def _unknown_template(name: bytes) -> ImaInvalid:
    return ImaInvalid(f"unknown template {name[:40].decode('ascii', 'replace')!r}")


def _cut(offset: int, size: int, end: int) -> ImaInvalid:
    return ImaInvalid(f"offset {offset}: {size} bytes expected, {end - offset} left")


def _hex(text: bytes) -> bytes:
    if text != text.lower():
        raise ImaInvalid("hex in lower case expected, as the kernel writes it")
    try:
        return a2b_hex(text)
    except ValueError:
        raise ImaInvalid("hex expected, without spaces") from None
