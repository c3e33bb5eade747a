"""Scripts of this folder in namespaces of their own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from umec_platform.demo.sandbox import INSIDE

Lines = list[dict[str, Any]]


def _run(script: str, *, seconds: float = 600, meanwhile: Callable[[dict[str, Any]], str] | None = None) -> Lines:
    """Return what a script wrote, a JSON object a line, once it ended well.

    `meanwhile` is handed its first line, out here, and returns what the script then reads.
    """
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    line = [*unshare, "--", sys.executable, str(Path(__file__).with_name(script))]
    with tempfile.TemporaryDirectory(prefix=f"umec-{Path(script).stem}-") as folder, tempfile.TemporaryFile() as errors:
        environment = {**os.environ, INSIDE: folder, "TMPDIR": folder, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(line, text=True, env=environment, **pipes) as process:
            try:
                first = "" if meanwhile is None else process.stdout.readline()
                answer = meanwhile(json.loads(first)) if first else None
                rest, _ = process.communicate(answer, timeout=seconds)
            finally:
                process.kill()  # and all that it started with it: --kill-child
        errors.seek(0)
        complained = errors.read().decode(errors="replace")
    assert first + rest, complained
    lines = [json.loads(text) for text in (first + rest).splitlines()]
    assert process.returncode == 0, (lines[-1], complained)
    return lines


@pytest.fixture(scope="session")
def in_sandbox():
    """Run a script of this folder in network, mount and PID namespaces of its own, and return its lines."""
    return _run
