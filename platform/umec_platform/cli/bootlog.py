"""`umec bootlog`: what a boot log says, and whether it holds."""

import json
from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_attest.bootlog import RawBootLog, RawEvent, UserspaceRecord
    from umec_attest.tpm.algorithms import HashAlgorithm

    Banks = dict[HashAlgorithm, dict[int, bytes]]

__all__ = ["app"]

app = typer.Typer(help="Look into boot logs.", no_args_is_help=True)

_IMA_PCR: Final = 10
_LAST_STATIC_PCR: Final = 15


class Irregularity(StrEnum):
    """What a log may be allowed to have: the rest of a CCEL table's area, and a quirk of firmware."""

    LOG_PADDED = "log-padded"
    VENDOR_INFO_SIZE = "spec-id-vendor-info-size"


@app.callback()
def _bootlog() -> None:
    """Look into boot logs."""


@app.command()
@refusals
def show(
    file: Annotated[Path, typer.Argument(help="A boot log, as in /sys/kernel/security/tpm0/binary_bios_measurements.")],
    pcrs: Annotated[Path | None, typer.Option(help="PCR values as JSON; the log must replay to them.")] = None,
    userspace: Annotated[
        Path | None, typer.Option(help="systemd's log that goes on where this one ends: tpm2-measure.log.")
    ] = None,
    allow: Annotated[
        list[Irregularity] | None, typer.Option(help="Let an irregular form pass, which is a finding then.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the events, the replayed PCRs of every bank, what the log claims, and the findings.

    The exit status says whether the log is well-formed and, with --pcrs, whether it replays. Facts are claims: without
    a quote nothing proves them. Logs of firmware, of confidential computing (CCEL), of systemd and canonical ones (CEL)
    are told apart by how they begin.
    """
    from umec_attest.bootlog import parse_userspace_log
    from umec_platform.cli.bootlog_text import describe
    from umec_platform.cli.files import read_file

    records = () if userspace is None else parse_userspace_log(read_file(userspace))
    result, banks = _read(read_file(file), records, allow or [])
    if pcrs is not None:
        _compare(read_file(pcrs), banks, result["format"])
    emit(result, as_json=as_json, human=describe(result))


def _read(data: bytes, records: "Sequence[UserspaceRecord]", allow: Collection[str]) -> "tuple[dict[str, Any], Banks]":
    from umec_attest.bootlog import parse_boot_log, parse_userspace_log
    from umec_attest.bootlog.cel import is_canonical_log
    from umec_platform.cli.bootlog_other import read_canonical, read_userspace

    if data.startswith(b"\x1e") or is_canonical_log(data):
        if records:
            raise typer.BadParameter("systemd's log goes on where the firmware's ends", param_hint="--userspace")
        return read_canonical(data) if is_canonical_log(data) else read_userspace(parse_userspace_log(data))
    return _read_firmware(parse_boot_log(data, allow=allow), records)


def _read_firmware(raw: "RawBootLog", records: "Sequence[UserspaceRecord]") -> "tuple[dict[str, Any], Banks]":
    from umec_attest.bootlog import claimed_facts
    from umec_attest.bootlog.registers import REGISTERS, register_name
    from umec_attest.errors import BootLogOtherRegisters
    from umec_attest.tpm.algorithms import HashAlgorithm
    from umec_platform.cli.bootlog_other import extend

    if records and raw.format == "confidential-computing":
        raise BootLogOtherRegisters("systemd's log is about PCRs, and this one is not")
    banks = _replay(raw)
    for record in records:
        extend(banks, record)
    bank = HashAlgorithm.SHA256 if HashAlgorithm.SHA256 in banks else max(banks, default=raw.algorithms[0])
    facts = claimed_facts(raw, bank, records)
    values = {
        algorithm.label: {str(pcr): value.hex() for pcr, value in sorted(pcrs.items())}
        for algorithm, pcrs in banks.items()
    }
    result: dict[str, Any] = {
        "format": raw.format,
        "events": [_event(event, bank) for event in raw.events],
        "pcrs": values,
        "facts": {"claims": True} | facts.to_json(),
        "findings": [finding.to_json() for finding in facts.findings],
    }
    if raw.format == "confidential-computing":
        result["pcrs"] = {}
        result["registers"] = {
            label: {register_name(int(index)): value for index, value in pcrs.items()} for label, pcrs in values.items()
        }
        result["register_of_index"] = dict(enumerate(REGISTERS))
        return result, {}
    return result, banks


def _replay(raw: "RawBootLog") -> "Banks":
    """Replay every bank that the whole log has digests for."""
    from umec_attest.bootlog import replay
    from umec_attest.bootlog.event_types import EV_NO_ACTION

    measured = [event for event in raw.events if event.type != EV_NO_ACTION]
    whole = [bank for bank in raw.algorithms if all(event.digest(bank) is not None for event in measured)]
    return {bank: dict(replay(raw, bank)) for bank in whole}


def _compare(text: bytes, banks: "Banks", form: str) -> None:
    """Each value has to be what the log gives; IMA's PCR goes on after it, and PCRs from 16 on are not of a boot."""
    from umec_attest.bootlog.replay import with_exit_boot_services
    from umec_attest.digests import parse_pcr_values
    from umec_attest.errors import BootLogOtherRegisters, BootLogReplayMismatch, PcrValuesInvalid

    if form in {"confidential-computing", "canonical"}:
        raise BootLogOtherRegisters(f"a log of the format {form} is about other registers than PCRs")
    try:
        expected = parse_pcr_values(json.loads(text))
    except (ValueError, RecursionError):
        raise PcrValuesInvalid("the file with PCR values is no JSON") from None
    for bank, values in expected.items():
        logged = banks.get(bank, {})
        if not values.keys() & logged.keys() - {_IMA_PCR}:
            raise BootLogReplayMismatch(f"the log has nothing to compare with the {bank.label} values")
        quirk = with_exit_boot_services(logged, bank)
        for pcr, value in values.items():
            if pcr == _IMA_PCR or (pcr > _LAST_STATIC_PCR and pcr not in logged):
                continue
            found = logged.get(pcr, bytes(bank.digest_size))
            if found != value:
                why = " (as if it left out the end of boot services)" if quirk.get(pcr) == value else ""
                detail = f"PCR {pcr} ({bank.label}): the log gives {found.hex()}, not {value.hex()}{why}"
                raise BootLogReplayMismatch(detail)


def _event(event: "RawEvent", bank: "HashAlgorithm") -> dict[str, Any]:
    from umec_attest.bootlog.coverage import coverable_parts, covered_part
    from umec_attest.bootlog.event_types import LOADED_IMAGES, type_name
    from umec_attest.bootlog.image_load import device_path

    shown: dict[str, Any] = {
        "pcr": event.pcr,
        "type": type_name(event.type),
        "digests": {algorithm.label: digest.hex() for algorithm, digest in event.digests},
        "data": event.data.hex(),
        "covered": covered_part(event, bank) is not None if coverable_parts(event) else None,
    }
    if event.type in LOADED_IMAGES:
        shown["claimed_path"] = device_path(event.data)
    return shown
