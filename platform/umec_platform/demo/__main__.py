"""Inside the sandbox: the run itself."""

import contextlib
import sys
import traceback
from typing import Annotated

import typer

from umec_platform.demo import chain
from umec_platform.demo.attacks import listed
from umec_platform.demo.command import Processes
from umec_platform.demo.run import Run
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline


def run(
    sabotage: Annotated[int | None, typer.Option(min=1, max=12)] = None,
    only: Annotated[str | None, typer.Option()] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run every link of the chain and every attack, or what one attack needs, and say how it went."""
    folder = prepare()
    timeline = Timeline(as_json=as_json, kinds={line["attack"]: line["kind"] for line in listed()})
    logs = folder / "logs"
    logs.mkdir()
    with contextlib.ExitStack() as clean_up:
        processes = Processes(logs)
        clean_up.callback(processes.stop_all)
        this = Run(folder, timeline, sabotage, processes, clean_up, only)
        try:
            chain.show(this)
        except Broken as broken:
            if not timeline.broken:
                timeline.broken.append(f"{broken.code or 'failed'}: {broken.detail}")
        except Exception as error:  # noqa: BLE001 - a run that stumbles has not shown the chain
            (logs / "demo.log").write_text(traceback.format_exc())
            timeline.broken.append(f"the run itself failed: {type(error).__name__}: {error}")
    sys.exit(timeline.finish())


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(run)
    app()
