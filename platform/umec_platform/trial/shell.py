"""The shell of a try-out: what its environment says, and a command that runs things on the device beside the node."""

import os
import shlex
import sys
from pathlib import Path
from typing import Final

from umec_platform.demo.run import REGISTRY, Run
from umec_platform.trial.street import NODE

__all__ = ["environment", "shell_line", "write_tools"]

CAMERA: Final = """\
#!/bin/sh
# Runs a command on the device beside the node: in its network namespace, and with the node as its resolver.
exec nsenter --net=/run/netns/{camera} -- unshare --mount -- sh -c '
  resolver=$1 place=$(readlink -f /etc/resolv.conf); shift
  case $place in /run/*) mkdir -p "${{place%/*}}" && touch "$place" ;; esac
  mount --bind "$resolver" "$place" && exec "$@"' camera {resolver} "$@"
"""

START_FILE: Final = """\
[ -f ~/.bashrc ] && . ~/.bashrc
PS1="(umec try) $PS1"
PATH={path}
"""


def write_tools(run: Run) -> Path:
    """Write `camera` and the shell's start-up file; return the folder of tools."""
    tools = run.folder / "bin"
    tools.mkdir()
    resolver = run.folder / "camera.resolv.conf"
    resolver.write_text(f"nameserver {NODE.access_address}\n")
    camera = tools / "camera"
    camera.write_text(CAMERA.format(camera=NODE.camera, resolver=shlex.quote(str(resolver))))
    camera.chmod(0o755)
    _start_file(run).write_text(START_FILE.format(path=shlex.quote(_path(tools))))
    return tools


def environment(run: Run, tools: Path) -> dict[str, str]:
    """Return the environment of the shell: the operator's credential is the one that commands find by themselves."""
    return {
        **os.environ,
        "PATH": _path(tools),
        "UMEC_CREDENTIAL": run.credential,
        "UMEC_REGISTRY": REGISTRY,
        "UMEC_TRY": str(run.folder),
    }


def shell_line(run: Run) -> list[str]:
    """Return the command line of the shell."""
    return ["bash", "--rcfile", str(_start_file(run))]


def _path(tools: Path) -> str:
    """Return where commands are found: `camera`, this very `umec`, and what was there before."""
    return f"{tools}:{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"


def _start_file(run: Run) -> Path:
    return run.folder / "bashrc"
