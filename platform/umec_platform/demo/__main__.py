"""Inside the sandbox: the run itself."""

import sys
from typing import Annotated

import typer

from umec_platform.demo import chain
from umec_platform.demo.attacks import listed
from umec_platform.demo.run import carry_out
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Timeline


def run(
    sabotage: Annotated[int | None, typer.Option(min=1, max=12)] = None,
    only: Annotated[str | None, typer.Option()] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run every link of the chain and every attack, or what one attack needs, and say how it went."""
    folder = prepare()
    timeline = Timeline(as_json=as_json, kinds={line["attack"]: line["kind"] for line in listed()})
    sys.exit(carry_out(folder, timeline, chain.show, sabotage=sabotage, only=only))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(run)
    app()
