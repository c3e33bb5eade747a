"""Inside the sandbox: the run itself."""

import contextlib
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from umec_platform.demo.command import Processes
from umec_platform.demo.run import Run
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.vm.chain import ATTACK, show


def run(
    lock: Annotated[Path, typer.Option()],
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show links 1 to 6 on a machine that boots, and one attack, and say how it went."""
    folder = prepare()
    timeline = Timeline(as_json=as_json, kinds={ATTACK: "open box"})
    logs = folder / "logs"
    logs.mkdir()
    with contextlib.ExitStack() as clean_up:
        processes = Processes(logs)
        clean_up.callback(processes.stop_all)
        try:
            show(Run(folder, timeline, None, processes, clean_up), lock)
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
