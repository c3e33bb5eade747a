"""The one pass over a binary list: cut it into entries, replay them, and judge those that are not known to be good.

This is where the time goes: a list has tens of thousands of entries. An entry that the fleet has seen costs a look-up
and the extension of the PCR; a new one that is listed in the usual form is recognised by its bytes; all others go the
long way, by `parse_entry` and `entry_finding`, and so does whatever is not recognised for any reason.
"""

import hashlib
import struct
from typing import Final, NamedTuple

from umec_attest.bootlog.findings import Finding
from umec_attest.ima.entries import AGGREGATE, IMA_PCR, ImaEntry, cut_entry, entry_end, parse_entry
from umec_attest.ima.entry_findings import entry_finding
from umec_attest.ima.policy import RuntimePolicy
from umec_attest.ima.seen import SeenEntries
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["Strange", "Walked", "look", "walk"]

_SIZES: Final = struct.Struct("<24xI6xI")
"""The size of the template's name, and that of the data if the name has six letters."""
_COMMON_SIZE: Final = 6
_COMMON_DATA: Final = 38
_PCR: Final = IMA_PCR.to_bytes(4, "little")
_NG: Final = b"\x06\0\0\0ima-ng"
_SIG: Final = b"\x07\0\0\0ima-sig"


class Strange(NamedTuple):
    """An entry that is not plainly good: its number (from 0), and what is wrong with it (None: boot_aggregate)."""

    number: int
    entry: ImaEntry
    finding: Finding | None


class Walked(NamedTuple):
    """How many entries there are up to the quoted PCR, how many bytes, the PCR they give, and the strange ones."""

    entries: int
    size: int
    pcr: bytes
    strange: tuple[Strange, ...]


def walk(
    data: bytes, start: bytes, quoted: bytes, *, policy: RuntimePolicy, algorithm: HashAlgorithm, seen: SeenEntries
) -> Walked:
    """Walk from the PCR `start` until the replay gives `quoted`, or to the end: the caller compares.

    Errors: `ImaInvalid`, `ImaTemplateUnknown`.
    """
    strange: list[Strange] = []
    value, offset, count, end = start, 0, 0, len(data)
    sizes, hashed, usual, known = _SIZES.unpack_from, algorithm.constructor, policy.usual, seen.recent.get
    while offset < end and value != quoted:
        try:
            size, length = sizes(data, offset)
        except struct.error:
            size, length = 0, 0  # a shorter entry, or a cut one
        after = offset + _COMMON_DATA + length if size == _COMMON_SIZE else entry_end(data, offset)
        raw = data[offset:after]
        digest = known(raw)
        if digest is None:
            if after > end:
                raise cut_entry(offset, after, end)
            odd = None
            digest = seen.former.get(raw)
            if digest is None:
                content = _usual(raw, usual)
                if content is None:
                    digest, odd = look(raw, count, policy, algorithm)
                else:
                    digest = hashed(content).digest()
            if odd is None:
                seen.add(raw, digest)
            else:
                strange.append(odd)
            known = seen.recent.get
        value = hashed(value + digest).digest()
        count += 1
        offset = after
    return Walked(count, offset, value, tuple(strange))


def look(raw: bytes, number: int, policy: RuntimePolicy, algorithm: HashAlgorithm) -> tuple[bytes, Strange | None]:
    """Look at an entry in full: return its template digest, and the entry if it is a strange one."""
    entry = parse_entry(raw)
    digest = b"\xff" * algorithm.digest_size if entry.violation else algorithm.digest(entry.data)
    if entry.name == AGGREGATE:
        return digest, Strange(number, entry, None)
    finding = entry_finding(entry, policy)
    return digest, None if finding is None else Strange(number, entry, finding)


def _usual(raw: bytes, usual: frozenset[bytes]) -> bytes | None:
    """Return the template data of a whole entry if it is a listed file in the template ima-ng or ima-sig, by SHA-256.

    None says nothing: the entry is looked at in full.
    """
    if raw[24:34] == _NG:
        data = raw[38:]
        if data not in usual:
            return None
    elif raw[24:35] == _SIG:
        data = raw[39:]
        end = 48 + int.from_bytes(data[44:48], "little")
        if data[:end] not in usual or len(data) != end + 4 + int.from_bytes(data[end : end + 4], "little"):
            return None
    else:
        return None
    template_hash = hashlib.sha1(data, usedforsecurity=False).digest()
    return data if raw[:24] == _PCR + template_hash else None
