"""`umec demo`: the main job, end to end, on real parts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from umec_core.errors import NotFound, Unavailable
from umec_platform.cli.output import emit, refusals

__all__ = ["demo", "demo_vm"]


class AttackUnknown(NotFound):
    """No attack has that name."""

    code = "attack-unknown"


class ImageUnavailable(Unavailable):
    """The node image for the demo cannot be built here."""

    code = "demo-image-unavailable"


@refusals
def demo(
    only: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show one attack, with the links that it stands on.")
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="Name all links and attacks with their expected codes, and run nothing.")
    ] = False,
    sabotage: Annotated[
        int | None, typer.Option(min=1, max=12, help="Break one link on purpose: the run must fail and name it.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Copy logs, databases and evidence of the run to this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show the whole chain of trust on this machine, in namespaces of its own; nothing is left behind.

    Exit status 0 only if every link held, every attack was refused and every effect arrived.
    """
    from umec_platform.demo.attacks import listed
    from umec_platform.demo.sandbox import enter

    if list_all:
        _list(as_json=as_json)
        return
    if only is not None and only not in {line["attack"] for line in listed()}:
        raise AttackUnknown(f"there is no attack {only!r}", advice="umec demo --list")
    arguments = [] if sabotage is None else ["--sabotage", str(sabotage)]
    arguments += [] if only is None else ["--only", only]
    if as_json:
        arguments.append("--json")
    sys.exit(enter(arguments, keep=keep))


@refusals
def demo_vm(
    tamper: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="What is done to its box: kernel, cmdline, initrd, root, firmware-vars, downgrade, keys (repeatable), "
            "or all. [default: keys]",
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Copy logs, databases, the image and the console to this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show the links 1 to 6 of the chain on a machine that really boots: QEMU, OVMF with Secure Boot, a software TPM.

    A node image is built and its PCR values are predicted; it boots, enrols, attests, and gets its credentials. Then
    somebody opens its box: what does not boot leaves the node silent until it lapses, what boots is judged and falls.
    Exit status 0 only if every link held and every attack was refused.
    """
    from umec_platform.demo.sandbox import MACHINE_TOOLS, enter
    from umec_platform.demo.timeline import Broken
    from umec_platform.demo.vm.box import KINDS
    from umec_platform.demo.vm.image import fetch

    wanted = set(tamper or ["keys"])
    unknown = wanted - {*KINDS, "all"}
    if unknown:
        raise AttackUnknown(f"nobody tampers with {', '.join(sorted(unknown))}", advice=f"one of {', '.join(KINDS)}")
    kinds = [kind for kind in KINDS if "all" in wanted or kind in wanted]
    try:
        lock = fetch()
    except Broken as broken:
        raise ImageUnavailable(broken.detail, advice="have root run scripts/bootstrap --vm") from broken
    arguments = ["--lock", str(lock), *(word for kind in kinds for word in ("--tamper", kind))]
    arguments += ["--json"] if as_json else []
    sys.exit(enter(arguments, keep=keep, module="umec_platform.demo.vm", tools=MACHINE_TOOLS))


def _list(*, as_json: bool) -> None:
    from umec_platform.demo.attacks import listed
    from umec_platform.demo.timeline import LINKS

    for number, name in LINKS.items():
        emit({"link": number, "name": name}, as_json=as_json, human=f"{number:>2} {name}")
    for line in listed():
        human = f"⚔  {line['attack']:<34} {line['expected']:<28} {line['kind']}: has {line['has']}"
        emit(line, as_json=as_json, human=human)
