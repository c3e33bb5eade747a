"""`umec bootlog`: what a boot log says, and whether it holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_attest.bootlog import RawBootLog, RawEvent
    from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["app"]

app = typer.Typer(help="Look into boot logs.", no_args_is_help=True)


@app.callback()
def _bootlog() -> None:
    """Look into boot logs."""


@app.command()
@refusals
def show(
    file: Annotated[Path, typer.Argument(help="A boot log, as in /sys/kernel/security/tpm0/binary_bios_measurements.")],
    pcrs: Annotated[Path | None, typer.Option(help="PCR values as JSON; the log must replay to them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the events, the replayed PCRs, the facts that digests prove, and the findings.

    The exit status says whether the log is well-formed and, with --pcrs, whether it replays.
    """
    from umec_attest.bootlog import claimed_facts, parse_boot_log
    from umec_attest.tpm.algorithms import HashAlgorithm
    from umec_platform.cli.files import read_file

    raw = parse_boot_log(read_file(file))
    banks = _replay(raw)
    if pcrs is not None:
        _compare(read_file(pcrs), banks)
    algorithm = HashAlgorithm.SHA256 if HashAlgorithm.SHA256 in banks else max(banks, default=raw.algorithms[0])
    facts = claimed_facts(raw, algorithm)
    result = {
        "format": raw.format,
        "events": [_event(event) for event in raw.events],
        "pcrs": {
            bank.label: {str(pcr): value.hex() for pcr, value in sorted(values.items())}
            for bank, values in banks.items()
        },
        "facts": facts.to_json(),
        "findings": [finding.to_json() for finding in facts.findings],
    }
    emit(result, as_json=as_json, human=_human(result))


def _replay(raw: "RawBootLog") -> "dict[HashAlgorithm, dict[int, bytes]]":
    """Replay every bank that the whole log has digests for."""
    from umec_attest.bootlog import replay
    from umec_attest.bootlog.event_types import EV_NO_ACTION

    measured = [event for event in raw.events if event.type != EV_NO_ACTION]
    whole = [bank for bank in raw.algorithms if all(event.digest(bank) is not None for event in measured)]
    return {bank: dict(replay(raw, bank)) for bank in whole}


def _compare(text: bytes, banks: "dict[HashAlgorithm, dict[int, bytes]]") -> None:
    import json

    from umec_attest.digests import parse_pcr_values
    from umec_attest.errors import BootLogReplayMismatch, PcrValuesInvalid

    try:
        expected = parse_pcr_values(json.loads(text))
    except ValueError:
        raise PcrValuesInvalid("the file with PCR values is no JSON") from None
    for bank, values in expected.items():
        for pcr, value in values.items():
            found = banks.get(bank, {}).get(pcr, bytes(bank.digest_size))
            if bank not in banks or found != value:
                raise BootLogReplayMismatch(f"PCR {pcr} ({bank.label}): the log gives {found.hex()}, not {value.hex()}")


def _event(event: "RawEvent") -> dict[str, Any]:
    from umec_attest.bootlog.event_types import type_name

    return {
        "pcr": event.pcr,
        "type": type_name(event.type),
        "digests": {bank.label: digest.hex() for bank, digest in event.digests},
        "data": event.data.hex(),
    }


def _human(result: dict[str, Any]) -> str:
    lines = [f"format: {result['format']}", f"events: {len(result['events'])}"]
    for event in result["events"]:
        digest = next(iter(reversed(event["digests"].values())), "")
        text = bytes.fromhex(event["data"])[:48].decode("ascii", "replace")
        readable = "".join(letter if letter.isprintable() else "." for letter in text)
        lines.append(f"  PCR {event['pcr']:>2}  {event['type']:<34} {digest[:16]}…  {readable}")
    for bank, values in result["pcrs"].items():
        lines += [f"{bank} PCR {pcr:>2}  {value}" for pcr, value in values.items()]
    lines += [f"fact: {name} = {value}" for name, value in result["facts"].items()]
    lines += [f"finding: {finding['id']}: {finding['detail']}" for finding in result["findings"]]
    return "\n".join(lines)
