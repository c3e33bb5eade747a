"""The command line and the services, started as a user would start them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import inside

__all__ = ["Processes", "umec", "wait_for"]

T = TypeVar("T")

COMMAND_SECONDS: Final = 60.0
"""No command of the demo works longer than a few seconds, unless it says so; one that does hangs."""
STOP_SECONDS: Final = 10.0


def umec_line(*arguments: str) -> list[str]:
    """Return the command line of `umec` in this environment."""
    return [sys.executable, "-m", "umec_platform.cli", *arguments]


def umec(*arguments: str, namespace: str | None = None, seconds: float = COMMAND_SECONDS) -> dict[str, Any]:
    """Run one command with `--json` and return what it printed; a refusal raises `Broken` with its code."""
    line = umec_line(*arguments, "--json")
    if namespace is not None:
        line = inside(namespace, line)
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=seconds)
    printed: dict[str, Any] = {}
    for text in reversed(done.stdout.splitlines()):
        if text.startswith("{"):
            printed = json.loads(text)
            break
    if done.returncode == 0:
        return printed
    detail = printed.get("detail") or done.stderr.strip()[-600:] or f"exit status {done.returncode}"
    raise Broken(f"umec {' '.join(arguments[:2])}: {detail}", printed.get("code"))


@dataclass(slots=True)
class Processes:
    """Long-running programs of a run, each with a log file of its own."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, line: Sequence[str]) -> None:
        """Start a program under a name."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ)
        self.running[name] = process

    def log(self, name: str) -> Path:
        """Return the log file of a program."""
        return self.logs / f"{name}.log"

    def check(self, name: str) -> None:
        """Raise if a program has ended by itself."""
        process = self.running[name]
        if process.poll() is not None:
            tail = self.log(name).read_text(errors="replace")[-1500:]
            raise Broken(f"{name} ended with status {process.returncode}: {tail}")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop a program and return its exit status."""
        process = self.running.pop(name)
        process.send_signal(how)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def stop_all(self) -> None:
        """Stop everything, last started first."""
        for name in reversed(list(self.running)):
            self.stop(name)


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float, every: float = 0.05) -> tuple[T, float]:
    """Ask `probe` until it answers something; return that and the milliseconds it took."""
    started = time.perf_counter()
    while True:
        answer = probe()
        elapsed = time.perf_counter() - started
        if answer is not None:
            return answer, elapsed * 1000
        if elapsed > seconds:
            raise Broken(f"{what}: not within {seconds:g} s")
        time.sleep(every)
