"""The one pass over a list: replay it, and judge the entries that are not known to be good.

This is where the time goes: a list has tens of thousands of entries. One that the fleet has seen costs a look-up and
the extension of the PCR, a new one of a listed file in the usual form a second look-up; all others go the long way, by
`parse_entry` and `entry_finding`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from umec_attest.bootlog.findings import Finding
from umec_attest.ima.entries import AGGREGATE, IMA_PCR, ImaEntry, parse_entry
from umec_attest.ima.entry_findings import entry_finding
from umec_attest.ima.policy import RuntimePolicy
from umec_attest.ima.seen import SeenEntries
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["Strange", "Walked", "walk"]

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
    pieces: Sequence[bytes],
    entry_of: Callable[[bytes], bytes],
    start: bytes,
    quoted: bytes,
    *,
    policy: RuntimePolicy,
    algorithm: HashAlgorithm,
    seen: SeenEntries,
) -> Walked:
    """Walk from the PCR `start` until the replay gives `quoted`, or to the end: the caller compares.

    `pieces` are the entries in whatever form, of which `entry_of` makes the binary one.
    Errors: `ImaInvalid`, `ImaTemplateUnknown`, and those of `entry_of`.
    """
    strange: list[Strange] = []
    value, count, usual = start, 0, policy.usual_in(algorithm)
    hasher = algorithm.constructor(b"").copy  # which is quicker than a new one each time
    for known in map(seen.recent.get, pieces):
        if value == quoted:
            break
        digest = known
        if digest is None:
            piece, odd = pieces[count], None
            digest = seen.former.get(piece)
            if digest is None:
                raw = entry_of(piece)
                digest = _usual(raw, usual)
                if digest is None:
                    digest, odd = _look(raw, count, policy, algorithm)
            if odd is None:
                seen.add(piece, digest)
            else:
                strange.append(odd)
        hashed = hasher()
        hashed.update(value + digest)
        value = hashed.digest()
        count += 1
    return Walked(count, sum(map(len, pieces[:count])), value, tuple(strange))


def _usual(raw: bytes, usual: Mapping[bytes, bytes]) -> bytes | None:
    """Return the template digest (SHA-256) of a listed file in the template ima-ng, or of one in ima-sig.

    None says nothing: the entry is looked at in full.
    """
    digest = usual.get(raw)
    if digest is None and raw[24:35] == _SIG:
        data = raw[39:]
        end = 48 + int.from_bytes(data[44:48], "little")
        file, signature = data[:end], data[end:]
        whole = len(signature) == 4 + int.from_bytes(signature[:4], "little")
        if whole and _entry(_NG, file) in usual and raw == _entry(_SIG, data):
            digest = hashlib.sha256(data).digest()
    return digest


def _entry(template: bytes, data: bytes) -> bytes:
    template_hash = hashlib.sha1(data, usedforsecurity=False).digest()
    return _PCR + template_hash + template + len(data).to_bytes(4, "little") + data


def _look(raw: bytes, number: int, policy: RuntimePolicy, algorithm: HashAlgorithm) -> tuple[bytes, Strange | None]:
    """Look at an entry in full: return its template digest, and the entry if it is a strange one."""
    entry = parse_entry(raw)
    digest = b"\xff" * algorithm.digest_size if entry.violation else algorithm.digest(entry.data)
    if entry.name == AGGREGATE:
        return digest, Strange(number, entry, None)
    finding = entry_finding(entry, policy)
    return digest, None if finding is None else Strange(number, entry, finding)
