"""systemd's log of what userspace measured: /run/log/systemd/tpm2-measure.log, JSON texts in sequence (RFC 7464).

It is the TCG's CEL-JSON as systemd writes it, and it goes on where the firmware's log ends: boot phases (PCR 11),
machine, file systems and volume keys (PCR 15), NV indexes that stand for PCRs (PCR 9). Each record is

    RS {"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": hex}], "content_type": "systemd",
        "content": {"string": "enter-initrd", "bootId": hex, "timestamp": µs, "eventType": "phase"}} LF

with "nv_index" instead of "pcr" for an NV index. A record's content is a claim; its text counts where the digest is of
it. `verify_boot_log` takes the records of a parsed log and replays them behind the firmware's.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from umec_attest.errors import UserspaceLogInvalid, UserspaceLogTooLarge
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PCR_COUNT

__all__ = [
    "MAX_RECORDS",
    "MAX_USERSPACE_LOG_SIZE",
    "UserspaceRecord",
    "follow",
    "parse_userspace_log",
]

MAX_USERSPACE_LOG_SIZE: Final = 1024 * 1024
"""A boot writes some twenty records of 300 bytes; every login and every service with an image adds one."""
MAX_RECORDS: Final = 4096
"""What fits into the size, at the least that a record takes."""
MAX_RECORD_SIZE: Final = 16 * 1024
"""systemd cuts descriptions after some hundred characters; it also bounds how deep a JSON text nests."""

_SEPARATOR: Final = b"\x1e"
_MEMBERS: Final = frozenset({"pcr", "nv_index", "recnum", "digests", "content_type", "content"})
_NEEDED: Final = frozenset({"digests", "content_type", "content"})

_Values = Mapping[HashAlgorithm, Mapping[int, bytes]]


@dataclass(frozen=True, slots=True)
class UserspaceRecord:
    """One record. `pcr` is None for an NV index, which is not replayed; `text` and `kind` are what it claims."""

    pcr: int | None
    digests: tuple[tuple[HashAlgorithm, bytes], ...]
    text: str | None
    kind: str | None

    def digest(self, algorithm: HashAlgorithm) -> bytes | None:
        """Return the digest for a bank, or None if the record has none for it."""
        return next((digest for found, digest in self.digests if found is algorithm), None)

    def proven_text(self, algorithm: HashAlgorithm) -> str | None:
        """Return the text if the digest is of it. That of a volume key is not: it is an HMAC."""
        if self.text is None or self.digest(algorithm) != algorithm.digest(self.text.encode("utf-8", "surrogatepass")):
            return None
        return self.text


def parse_userspace_log(data: bytes) -> tuple[UserspaceRecord, ...]:
    """Parse the log; an empty one has no records.

    Errors: `UserspaceLogTooLarge`, `UserspaceLogInvalid`. A record that was not written to its end is refused: whoever
    reads the log holds its lock.
    """
    if len(data) > MAX_USERSPACE_LOG_SIZE:
        raise UserspaceLogTooLarge(f"a log of {len(data)} bytes is beyond the limit of {MAX_USERSPACE_LOG_SIZE}")
    if not data:
        return ()
    if not data.startswith(_SEPARATOR):
        raise UserspaceLogInvalid("the log of userspace does not begin with a record separator")
    texts = bytes(data).split(_SEPARATOR)[1:]
    if len(texts) > MAX_RECORDS:
        raise UserspaceLogTooLarge(f"{len(texts)} records are beyond the limit of {MAX_RECORDS}")
    return tuple(_record(number, text) for number, text in enumerate(texts))


def follow(records: Iterable[UserspaceRecord], start: _Values, goal: _Values) -> int | None:
    """Return after how many records the PCRs of `goal` have its values, if they begin with `start`; None if never.

    `start` has each bank and PCR that `goal` has. What was measured after a quote is behind that number.
    Errors: `UserspaceLogInvalid` for a record of such a PCR without a digest for a bank of `goal`.
    """
    values = {bank: {pcr: start[bank][pcr] for pcr in pcrs} for bank, pcrs in goal.items()}
    if values == goal:
        return 0
    for number, record in enumerate(records, 1):
        for bank, pcrs in values.items():
            if record.pcr not in pcrs:
                continue
            digest = record.digest(bank)
            if digest is None:
                raise UserspaceLogInvalid(f"record {number - 1} of PCR {record.pcr} has no {bank.label} digest")
            pcrs[record.pcr] = bank.digest(pcrs[record.pcr] + digest)
        if values == goal:
            return number
    return None


def _record(number: int, text: bytes) -> UserspaceRecord:
    def fail(why: str) -> UserspaceLogInvalid:
        return UserspaceLogInvalid(f"record {number} of the userspace log: {why}")

    if len(text) > MAX_RECORD_SIZE:
        raise UserspaceLogTooLarge(f"record {number} is beyond the limit of {MAX_RECORD_SIZE} bytes")
    if not text.endswith(b"\n"):
        raise fail("it was not written to its end")
    try:
        record: Any = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise fail("it is no JSON text") from error
    if not isinstance(record, dict) or not record.keys() <= _MEMBERS or not record.keys() >= _NEEDED:
        raise fail(f"its members must be {', '.join(sorted(_MEMBERS))}")
    if ("pcr" in record) == ("nv_index" in record):
        raise fail("it must be about a PCR or an NV index")
    pcr, content = record.get("pcr"), record["content"]
    if "pcr" in record and (type(pcr) is not int or not 0 <= pcr < PCR_COUNT):  # True is no number here
        raise fail("there is no such PCR")
    if record["content_type"] != "systemd" or not isinstance(content, dict):
        raise fail("its content is not systemd's")
    words = [content.get("string"), content.get("eventType")]
    if not all(word is None or isinstance(word, str) for word in words):
        raise fail("its text or its type is no string")
    digests = _digests(record["digests"])
    if digests is None:
        raise fail("its digests are not one hex digest for each of several hashes")
    return UserspaceRecord(pcr, digests, words[0], words[1])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def _digests(value: object) -> tuple[tuple[HashAlgorithm, bytes], ...] | None:
    """Return the digests of a record; None where there is none, or one that is repeated, unknown or of a wrong size."""
    digests: dict[HashAlgorithm, bytes] = {}
    if not isinstance(value, list):
        return None
    for entry in value:
        try:
            algorithm = HashAlgorithm.from_label(entry["hashAlg"])
            digest = bytes.fromhex(entry["digest"])
        except (KeyError, TypeError, ValueError):
            return None
        if entry.keys() != {"hashAlg", "digest"} or algorithm in digests or len(digest) != algorithm.digest_size:
            return None
        if digest.hex() != entry["digest"]:  # fromhex skips white space and takes capitals
            return None
        digests[algorithm] = digest
    return tuple(digests.items()) or None
