"""Logs that no firmware wrote: systemd's of what userspace measured, and canonical ones of the TCG."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umec_attest.bootlog import UserspaceRecord
    from umec_attest.bootlog.cel import CelRecord
    from umec_attest.tpm.algorithms import HashAlgorithm

    Banks = dict[HashAlgorithm, dict[int, bytes]]

__all__ = ["extend", "read_canonical", "read_userspace"]


def extend(banks: "Banks", record: "UserspaceRecord") -> None:
    """Extend replayed banks by a record; a bank that it has no digest for cannot be replayed any further: it goes."""
    if record.pcr is None:
        return
    for bank in list(banks):
        digest = record.digest(bank)
        if digest is None:
            del banks[bank]
            continue
        before = banks[bank].get(record.pcr, bytes(bank.digest_size))
        banks[bank][record.pcr] = bank.digest(before + digest)


def read_userspace(records: "Sequence[UserspaceRecord]") -> "tuple[dict[str, Any], Banks]":
    """Return systemd's log as the command shows it, and the PCRs that it gives from zero."""
    banks: Banks = {bank: {} for bank, _ in records[0].digests} if records else {}
    for record in records:
        extend(banks, record)
    result: dict[str, Any] = {
        "format": "systemd-userspace",
        "events": [_record(record) for record in records],
        "pcrs": {
            bank.label: {str(pcr): value.hex() for pcr, value in sorted(pcrs.items())} for bank, pcrs in banks.items()
        },
        "facts": {"claims": True},
        "findings": [],
    }
    return result, banks


def read_canonical(data: bytes) -> "tuple[dict[str, Any], Banks]":
    """Return a canonical log as the command shows it. Its registers are no PCRs unless it says so."""
    from umec_attest.bootlog.cel import parse_canonical_log, replay_canonical_log

    records = parse_canonical_log(data)
    whole = [bank for bank in records[0].digests if all(bank in record.digests for record in records)]
    registers = {
        bank.label: {
            f"{kind} {index}": value.hex() for (kind, index), value in replay_canonical_log(records, bank).items()
        }
        for bank in whole
    }
    result: dict[str, Any] = {
        "format": "canonical",
        "events": [_canonical(record) for record in records],
        "pcrs": {},
        "registers": registers,
        "facts": {"claims": True},
        "findings": [],
    }
    return result, {}


def _record(record: "UserspaceRecord") -> dict[str, Any]:
    covered = all(record.proven_text(bank) is not None for bank, _ in record.digests)
    return {
        "pcr": record.pcr,
        "type": record.kind or "",
        "digests": {bank.label: digest.hex() for bank, digest in record.digests},
        "data": (record.text or "").encode("utf-8", "surrogatepass").hex(),
        "covered": covered,
    }


def _canonical(record: "CelRecord") -> dict[str, Any]:
    return {
        "register": f"{record.kind} {record.index}",
        "type": f"content {record.content_type}",
        "digests": {bank.label: digest.hex() for bank, digest in record.digests.items()},
        "data": record.content.hex(),
        "covered": all(record.covered(bank) for bank in record.digests),
    }
