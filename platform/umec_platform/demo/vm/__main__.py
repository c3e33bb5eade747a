"""Inside the sandbox: the run itself."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from umec_platform.demo.run import carry_out
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Timeline
from umec_platform.demo.vm.box import KINDS
from umec_platform.demo.vm.chain import show


def run(
    lock: Annotated[Path, typer.Option()],
    tamper: Annotated[list[str], typer.Option()],
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show links 1 to 6 on a machine that boots, and what somebody does to its box, and say how it went."""
    folder = prepare()
    timeline = Timeline(as_json=as_json, kinds=dict.fromkeys(KINDS, "open box"))
    sys.exit(carry_out(folder, timeline, lambda run: show(run, lock, tamper)))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(run)
    app()
