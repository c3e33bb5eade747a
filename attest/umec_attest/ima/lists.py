"""Lists as a whole: parse, replay, and compare with a quote.

1  every entry has a template that we know, measured into PCR 10
2  the template hash is that of the template data (or the entry is a violation)
3  the replay of the list, in the bank of the quote, gives the quoted PCR 10; what was added after it is not proven
4  the first entry, and no other, is boot_aggregate: the hash over PCR 0-9 (0-7 before Linux 5.8) of this quote
"""

from collections.abc import Iterable, Mapping
from typing import Final

from umec_attest.errors import ImaAggregateMismatch, ImaEmpty, ImaReplayMismatch
from umec_attest.ima.entries import AGGREGATE, IMA_PCR, ImaEntry, entry_end, parse_entry, raw_entries
from umec_attest.ima.text import binary_list, is_text
from umec_attest.quote import UnanchoredQuote, VerifiedQuote
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["check_aggregate", "first_entry", "parse_ima", "quoted_banks", "replay_ima", "verify_ima"]

_AGGREGATED: Final = (range(10), range(8))


def parse_ima(data: bytes) -> tuple[ImaEntry, ...]:
    """Parse a list in binary or text form (1, 2).

    Errors: `ImaInvalid`, `ImaEmpty`, `ImaTemplateUnknown`.
    """
    entries = tuple(map(parse_entry, raw_entries(binary_list(data))))
    if not entries:
        raise ImaEmpty("a list without an entry: it proves nothing")
    return entries


def first_entry(data: bytes) -> ImaEntry:
    """Return the first entry of a list that has one, in either form. Errors: `ImaInvalid`, `ImaTemplateUnknown`."""
    start = data[: data.find(b"\n") + 1] if is_text(data) else data
    raw = binary_list(start)
    return parse_entry(raw[: entry_end(raw, 0)])


def replay_ima(entries: Iterable[ImaEntry], algorithm: HashAlgorithm) -> bytes:
    """Return the PCR that these entries give in a bank."""
    return _replay(entries, algorithm, None)[0]


def verify_ima(entries: tuple[ImaEntry, ...], quote: VerifiedQuote | UnanchoredQuote) -> tuple[ImaEntry, ...]:
    """Return the entries that give PCR 10 of the quote, if they began on this boot (3, 4): later ones are not proven.

    Errors: `ImaReplayMismatch`, `ImaAggregateMismatch`.
    """
    counts = set()
    for algorithm, quoted in quoted_banks(quote).items():
        value, count = _replay(entries, algorithm, quoted)
        if value != quoted:
            raise ImaReplayMismatch(f"the list does not give the quoted PCR {IMA_PCR} ({algorithm.label})")
        counts.add(count)
    if len(counts) > 1:
        raise ImaReplayMismatch("the banks of the quote stand at different entries of the list")
    proven = entries[: counts.pop()]
    if any(entry.name == AGGREGATE for entry in proven[1:]):
        raise ImaAggregateMismatch("boot_aggregate must be the first entry, and only that")
    check_aggregate(proven[0], quote.pcrs)
    return proven


def quoted_banks(quote: VerifiedQuote | UnanchoredQuote) -> Mapping[HashAlgorithm, bytes]:
    """Return PCR 10 of each quoted bank; `ImaReplayMismatch` where none was quoted."""
    quoted = {algorithm: bank[IMA_PCR] for algorithm, bank in quote.pcrs.items() if IMA_PCR in bank}
    if not quoted:
        raise ImaReplayMismatch(f"PCR {IMA_PCR} was not quoted: nothing proves the list")
    return quoted


def check_aggregate(entry: ImaEntry, pcrs: Mapping[HashAlgorithm, Mapping[int, bytes]]) -> None:
    """4. The aggregate is over the bank of its own hash. Errors: `ImaAggregateMismatch`."""
    if entry.name != AGGREGATE:
        raise ImaAggregateMismatch("boot_aggregate must be the first entry, and only that")
    label, _, digest = entry.fields[0].partition(b":\0")
    name = label.removeprefix(b"ima:")
    algorithm = next((known for known in pcrs if known.label.encode() == name), None)
    if algorithm is None:
        raise ImaAggregateMismatch(f"boot_aggregate is of the bank {label[:16]!r}, which was not quoted")
    bank = pcrs[algorithm]
    for wanted in _AGGREGATED:
        if all(pcr in bank for pcr in wanted) and algorithm.digest(b"".join(bank[pcr] for pcr in wanted)) == digest:
            return
    raise ImaAggregateMismatch("boot_aggregate is not the hash of the quoted PCRs: the list is of another boot")


def _replay(entries: Iterable[ImaEntry], algorithm: HashAlgorithm, until: bytes | None) -> tuple[bytes, int]:
    value, violated, hashed = bytes(algorithm.digest_size), b"\xff" * algorithm.digest_size, algorithm.constructor
    count = 0
    for entry in entries:
        digest = violated if entry.violation else hashed(entry.data).digest()
        value = hashed(value + digest).digest()
        count += 1
        if value == until:
            break
    return value, count
