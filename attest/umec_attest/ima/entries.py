"""One entry of a list, as the kernel writes it in binary form (`binary_runtime_measurements`, little-endian).

    u32  PCR, always 10
    20   SHA-1 of the template data, whatever the bank; zeros for a violation
    u32  size of the template's name, and the name
    u32  size of the template data, and the data: fields, each behind its size as u32

The legacy template "ima" has no size of its data; its first field has none either, and its name is hashed in 256 bytes.
"""

import hashlib
import struct
from typing import Final, NamedTuple

from umec_attest.errors import ImaInvalid, ImaTemplateUnknown

__all__ = [
    "AGGREGATE",
    "IMA_PCR",
    "LEGACY",
    "MAX_FIELD_SIZE",
    "MAX_LIST_SIZE",
    "TEMPLATES",
    "USUAL_HEAD",
    "VIOLATION",
    "ImaEntry",
    "entry_end",
    "parse_entry",
    "raw_entries",
    "usual_entry",
]

MAX_LIST_SIZE: Final = 64 * 1024 * 1024
"""A busy server has some 100,000 entries of about 150 bytes."""
MAX_FIELD_SIZE: Final = 64 * 1024
"""Paths have at most 4096 bytes, buffers and signatures some thousands."""

IMA_PCR: Final = 10
LEGACY: Final = "ima"
TEMPLATES: Final = {
    LEGACY: 2,  # digest (SHA-1 or MD5), name
    "ima-ng": 2,  # digest with its algorithm, name
    "ima-ngv2": 2,  # digest with its kind and algorithm, name
    "ima-sig": 3,  # … and the file's signature
    "ima-sigv2": 3,
    "ima-buf": 3,  # … and a buffer, such as a kernel command line or a key
    "ima-modsig": 5,  # … and a signature, the digest that an appended signature is over, and that signature
    "evm-sig": 9,  # … and a signature over metadata; names, sizes and values of attributes; owner, group and mode
}
"""Every template of the kernel, and how many fields it has."""

VIOLATION: Final = bytes(20)
"""The template hash of a file that changed while it was measured: the kernel extends with all ones."""
AGGREGATE: Final = b"boot_aggregate"

_HEAD: Final = struct.Struct("<I20sI")
_SIZE: Final = struct.Struct("<I")
_SIZES: Final = struct.Struct("<24xI6xI")
"""The size of the template's name, and that of the data if the name has six letters, as the usual one has."""
_USUAL_NAME: Final = 6
USUAL_HEAD: Final = 38
"""Bytes before the data of an entry in the template ima-ng."""
_FILE: Final = struct.Struct("<I20sI6sII8s32sI")
"""The usual entry up to the name of the file."""
_NAMES: Final = {name.encode(): name for name in TEMPLATES}
_LONGEST: Final = max(map(len, _NAMES))
_LEGACY_DIGEST: Final = 20
_LEGACY_NAME: Final = 256


class ImaEntry(NamedTuple):
    """One measurement: the template data as it is hashed, and its fields (a tuple, for a busy server has 100,000)."""

    template: str
    template_hash: bytes
    data: bytes
    fields: tuple[bytes, ...]

    @property
    def violation(self) -> bool:
        """Whether this says that a file changed while it was measured."""
        return self.template_hash == VIOLATION

    @property
    def name(self) -> bytes:
        """What was measured: a path, or what the kernel calls it."""
        return self.fields[1].rstrip(b"\0") if self.template == LEGACY else self.fields[1][:-1]


def _cut(offset: int, after: int, end: int) -> ImaInvalid:
    return ImaInvalid(f"offset {offset}: an entry has at least {after - offset} bytes, and {end - offset} are left")


def entry_end(data: bytes, offset: int) -> int:
    """Return where the entry at `offset` ends by its sizes; `ImaInvalid` where the list ends before them."""
    end = len(data)
    try:
        (size,) = _SIZE.unpack_from(data, offset + 24)
        at = offset + _HEAD.size + size
        if size == len(LEGACY) and data[at - size : at] == LEGACY.encode():
            at += _LEGACY_DIGEST
        (length,) = _SIZE.unpack_from(data, at)
    except struct.error:
        raise _cut(offset, offset + _HEAD.size, end) from None
    return int(at + _SIZE.size + length)


def raw_entries(data: bytes) -> list[bytes]:
    """Cut a binary list into its entries. Errors: `ImaInvalid`."""
    entries: list[bytes] = []
    offset, end, sizes = 0, len(data), _SIZES.unpack_from
    while offset < end:
        try:
            size, length = sizes(data, offset)
        except struct.error:
            size, length = 0, 0  # a shorter entry than the usual ones, or a cut one
        after = offset + USUAL_HEAD + length if size == _USUAL_NAME else entry_end(data, offset)
        entries.append(data[offset:after])
        offset = after
    if offset > end:
        raise _cut(end - len(entries[-1]), offset, end)
    return entries


def usual_entry(template_hash: bytes, digest: bytes, name: bytes) -> bytes:
    """Return the entry of a file in the usual template, ima-ng, by SHA-256; the name ends with its NUL."""
    size = len(name)
    return _FILE.pack(IMA_PCR, template_hash, 6, b"ima-ng", 48 + size, 40, b"sha256:\0", digest, size) + name


def parse_entry(raw: bytes) -> ImaEntry:
    """Parse one whole entry. Errors: `ImaInvalid`, `ImaTemplateUnknown`."""
    pcr, template_hash, size = _HEAD.unpack_from(raw)
    if pcr != IMA_PCR:
        raise ImaInvalid(f"an entry of PCR {pcr}: IMA measures into PCR {IMA_PCR}")
    name = raw[_HEAD.size : _HEAD.size + min(size, _LONGEST + 1)]
    template = _NAMES.get(name)
    if template is None:
        raise ImaTemplateUnknown(f"unknown template {name.decode('ascii', 'replace')!r}")
    content = raw[_HEAD.size + size :]
    data, fields = _legacy(content) if template == LEGACY else _split(content[_SIZE.size :])
    if len(fields) != TEMPLATES[template]:
        raise ImaInvalid(f"the template {template} has {TEMPLATES[template]} fields, not {len(fields)}")
    if fields[1][-1:] != b"\0":
        raise ImaInvalid("a name ends with a NUL")
    entry = ImaEntry(template, template_hash, data, fields)
    if entry.violation:
        if any(fields[0] if template == LEGACY else fields[0].partition(b":\0")[2]):
            raise ImaInvalid("a violation that carries a digest: the kernel measures none", advice="it is forged")
    elif hashlib.sha1(data, usedforsecurity=False).digest() != template_hash:
        raise ImaInvalid(f"a template hash is not that of its data: {entry.name[:80]!r}")
    return entry


def _split(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    fields: list[bytes] = []
    offset, end = 0, len(data)
    while offset < end:
        start = offset + _SIZE.size
        offset = start + int.from_bytes(data[offset:start], "little")
        if offset > end or offset - start > MAX_FIELD_SIZE:
            raise ImaInvalid("a field of a template is longer than the template, or than any field is")
        fields.append(data[start:offset])
    return data, tuple(fields)


def _legacy(content: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Digest and name of the template "ima": the name is hashed with NULs up to 256 bytes."""
    digest, name = content[:_LEGACY_DIGEST], content[_LEGACY_DIGEST + _SIZE.size :]
    if b"\0" in name:
        raise ImaInvalid("a name of the template ima has no NUL")
    padded = name.ljust(_LEGACY_NAME, b"\0")  # a name of 256 bytes and more has no NUL at its end, and is refused
    return digest + padded, (digest, padded)
