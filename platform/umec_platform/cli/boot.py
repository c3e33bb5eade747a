"""`umec nodeimage boot`: a node image as a machine that can be switched on here."""

import contextlib
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_images.machine import Machine, Progress

__all__ = ["boot"]

NOT_AS_DOCUMENTED = 1


@refusals
def boot(
    folder: Annotated[Path, typer.Argument(help="A folder that `umec nodeimage build` made.")],
    tamper: Annotated[
        str | None,
        typer.Option(help="Do first: kernel, cmdline, initrd, root, keys, firmware-vars or downgrade."),
    ] = None,
    older: Annotated[
        Path | None, typer.Option(help="The older image that --tamper downgrade puts on the disk.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="The node's disk, variables and TPM: another boot with it is the same node's.")
    ] = None,
    ticket: Annotated[Path | None, typer.Option(help="A file with an enrolment ticket, handed in unmeasured.")] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Let it reach what this machine reaches; else it is alone.")
    ] = False,
    access: Annotated[
        str | None, typer.Option(help="A tap interface of this machine: its second network, where users are.")
    ] = None,
    on: Annotated[bool, typer.Option("--on", help="Leave it on, until it ends or SIGTERM.")] = False,
    console: Annotated[bool, typer.Option("--console", help="Show all that its serial console says.")] = False,
    seconds: Annotated[int, typer.Option(min=1, help="How long its boot may take.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Boot an image in QEMU with OVMF, Secure Boot and a software TPM, and say how far it came.

    With --tamper its disk or its firmware's variables are changed first, as somebody with the box in hand would; the
    image itself stays as it is. Exit status 0 only if the boot ended, or went on, as it has to.
    """
    from umec_attest.predict import predict
    from umec_images.machine import DOCUMENTED, Machine, faults, install, open_folder
    from umec_images.machine.errors import TamperingRefused

    signal.signal(signal.SIGTERM, _end)
    documented = DOCUMENTED.get(tamper)
    if documented is None:
        raise TamperingRefused(f"nobody tampers with {tamper!r}", advice=f"one of {_names(DOCUMENTED)}")
    image = open_folder(folder)
    with contextlib.ExitStack() as closing:
        node = keep or Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="umec-node-")))
        install(image, node)
        _manufacture(node)
        if tamper is not None:
            _tamper(tamper, node, older)
        handed_in = [] if ticket is None else [("ticket", ticket)]
        machine = Machine(node, image.firmware, network=network, access=access, handed_in=handed_in)
        closing.enter_context(machine)
        progress = _watch(machine, seconds, console=console, as_json=as_json)
        found = faults(documented, progress, predict(folder).pcrs)
        _say_outcome(tamper, progress, found, as_json=as_json)
        if on and not found:
            _stay(machine, console=console, as_json=as_json)
    raise typer.Exit(NOT_AS_DOCUMENTED if found else 0)


def _names(documented: Mapping[str | None, Any]) -> str:
    return ", ".join(name for name in documented if name is not None)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _manufacture(node: Path) -> None:
    """Give the node a TPM with an endorsement key certificate, if it has none; its maker is `tpm/ek-root.pem`."""
    from umec_attest.testing.swtpm import SoftwareTpm

    if (node / "tpm" / "state").is_dir():
        return
    with SoftwareTpm(node / "tpm") as tpm:
        (node / "tpm" / "ek-root.pem").write_text(tpm.authority.root_pem)
        (node / "tpm" / "ek-chain.pem").write_text(tpm.authority.chain_pem)


def _tamper(kind: str, node: Path, older: Path | None) -> None:
    from umec_core.clock import system_clock
    from umec_images.machine import Attacker, open_folder, tamper

    with tempfile.TemporaryDirectory(prefix="umec-attacker-") as folder:
        found = None if older is None else open_folder(older)
        tamper(kind, node, Attacker(Path(folder) / "keys", system_clock(), found))


def _watch(machine: "Machine", seconds: int, *, console: bool, as_json: bool) -> "Progress":
    """Follow the boot until something ended it, or the node's own programs run and have said its PCR values."""
    from umec_images.machine import Progress, Stage

    progress = Progress()
    for line in machine.lines(seconds=seconds):
        if console:
            _say_line(line.text, as_json=as_json)
        reached = progress.line(line.text)
        if reached is not None:
            event = {"event": "stage", "stage": reached.value, "after": round(line.after, 1)}
            emit(event, as_json=as_json, human=f"{line.after:7.1f} s  {reached.value}")
        if progress.end is not None or (progress.stage.place >= Stage.ROOT.place and progress.measured):
            break
    return progress


def _say_outcome(tamper: str | None, progress: "Progress", faults: list[str], *, as_json: bool) -> None:
    outcome: dict[str, Any] = {
        "event": "outcome",
        "tampered": tamper,
        "stage": progress.stage.value,
        "ended_by": None if progress.end is None else progress.end.value,
        "said": progress.said,
        "as_documented": not faults,
        "faults": faults,
        "pcrs": {str(number): value.hex() for number, value in sorted(progress.pcrs.items())},
    }
    emit(outcome, as_json=as_json, human="\n".join(_human(outcome)))


def _human(outcome: Mapping[str, Any]) -> Iterator[str]:
    before = "" if outcome["tampered"] is None else f"{outcome['tampered']} was tampered with: "
    if outcome["ended_by"] is None:
        yield f"{before}it booted, up to the stage {outcome['stage']}"
    else:
        yield f"{before}it ended in the stage {outcome['stage']} by {outcome['ended_by']}"
        yield f"  {outcome['said']}"
    yield from (f"PCR {number:>2}  {value}" for number, value in outcome["pcrs"].items())
    yield from (f"not as it has to be: {fault}" for fault in outcome["faults"])


def _stay(machine: "Machine", *, console: bool, as_json: bool) -> None:
    """Pass on what the node's programs say, until it ends."""
    from umec_images.machine.progress import NODE

    for line in machine.lines(seconds=float("inf")):
        if console or NODE in line.text:
            _say_line(line.text, as_json=as_json)


def _say_line(text: str, *, as_json: bool) -> None:
    emit({"event": "line", "text": text}, as_json=as_json, human=text)
