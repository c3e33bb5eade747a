"""Inside the sandbox: the street, then the shell or the command, until it ends."""

import contextlib
import json
import signal
import subprocess
import sys
from typing import Final

import typer
from rich.console import Console

from umec_core.errors import UmecError, Unavailable
from umec_platform.cli.output import SystemRefused, fail
from umec_platform.demo.command import Processes
from umec_platform.demo.run import MANAGEMENT, MP1, REGISTRY, Run
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.trial import street
from umec_platform.trial.shell import environment, shell_line, write_tools

AS_JSON: Final = "--json"


class TryOutFailed(Unavailable):
    """A site to try things out on could not be built."""

    code = "try-out-failed"


def main(arguments: list[str]) -> int:
    """Run what `arguments` say (nothing: a shell) in a try-out site; return its exit status."""
    as_json, line = arguments[:1] == [AS_JSON], arguments[1:]
    folder = prepare()
    logs = folder / "logs"
    logs.mkdir()
    with contextlib.ExitStack() as clean_up:
        processes = Processes(logs)
        clean_up.callback(processes.stop_all)
        run = Run(folder, Timeline(as_json=False, console=Console(quiet=True)), None, processes, clean_up)
        print("building the street, which takes half a minute …", file=sys.stderr, flush=True)  # noqa: T201
        try:
            street.open_street(run)
        except Broken as broken:
            error = TryOutFailed(broken.detail, advice="try again; umec demo shows where it breaks")
            if broken.code is not None:
                error.code = broken.code  # type: ignore[misc]  # of the command that failed, known only now
            return _refuse(error, as_json=as_json)
        tools = write_tools(run)
        _say(json.dumps(_facts(run)) if as_json else _welcome(run, shell=not line))
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for what runs in the shell
        try:
            return subprocess.run(line or shell_line(run), check=False, env=environment(run, tools)).returncode
        except OSError as error:
            return _refuse(SystemRefused(f"{line[0] if line else 'bash'}: {error.strerror}"), as_json=as_json)


def _refuse(error: UmecError, *, as_json: bool) -> int:
    try:
        fail(error, as_json=as_json)
    except typer.Exit as end:
        return end.exit_code


def _facts(run: Run) -> dict[str, str | bool]:
    return {
        "simulated": True,
        "management": MANAGEMENT,
        "mp1": MP1,
        "registry": REGISTRY,
        "node": street.NODE.name,
        "tenant": street.TENANT,
        "address": street.ADDRESS,
        "folder": str(run.folder),
        "operator_credential": run.credential,
        "builder_credential": str(run.folder / f"{street.BUILDER}.json"),
        "tenant_credential": str(run.folder / f"{street.TENANT_OWNER}.json"),
    }


def _welcome(run: Run, *, shell: bool) -> str:
    lines = [
        "SIMULATED   the TPM of the node is a program, and so was its boot: this site is for trying things out",
        f"site        management {MANAGEMENT}, Mp1 {MP1}, registry {REGISTRY}",
        f"node        {street.NODE.name}, trusted; `camera COMMAND` runs a command on the device beside it",
        f"granted     {street.TENANT}: address {street.ADDRESS}, names under {street.TENANT}.mec.internal",
        "operator    --credential $UMEC_TRY/operator.json, which UMEC_CREDENTIAL names already",
        f"builder     --credential $UMEC_TRY/{street.BUILDER}.json",
        f"tenant      --credential $UMEC_TRY/{street.TENANT_OWNER}.json",
        f"logs        {run.processes.logs}",
    ]
    if shell:
        lines.append("end         exit ends everything; only files outside of $UMEC_TRY stay")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is the output


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
