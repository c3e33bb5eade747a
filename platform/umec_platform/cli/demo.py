"""`umec demo`: the main job, end to end, on real parts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from umec_platform.cli.output import refusals

__all__ = ["demo"]


@refusals
def demo(
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
    from umec_platform.demo.sandbox import enter

    arguments = [] if sabotage is None else ["--sabotage", str(sabotage)]
    if as_json:
        arguments.append("--json")
    sys.exit(enter(arguments, keep=keep))
