"""What a camera sees: a process in its namespace that asks again and again, and when its answers changed."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import StreetNode, inside

__all__ = ["Attempt", "Sight", "look"]

SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One question: when it was asked and when its outcome was known (monotonic seconds), and the answer, if any."""

    asked: float
    at: float
    answer: str | None


@dataclass(slots=True)
class Sight:
    """A stream of attempts; the process runs until the run ends."""

    what: str
    process: subprocess.Popen[str]
    attempts: list[Attempt] = field(default_factory=list)

    @classmethod
    def start(cls, run: Run, node: StreetNode, what: str, *question: str) -> Self:
        """Start asking from the camera beside a node: `http ADDRESS PORT` or `dns RESOLVER NAME`."""
        line = inside(node.camera, [sys.executable, "-m", "umec_platform.demo.probe", *question])
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        run.clean_up.callback(process.wait)
        run.clean_up.callback(process.kill)
        sight = cls(what, process)
        threading.Thread(target=sight._read, daemon=True).start()
        return sight

    def first(self, holds: Callable[[Attempt], bool], *, after: float, seconds: float = SECONDS) -> Attempt:
        """Return the first attempt asked after a time for which `holds` is true; raises `Broken` if none comes."""
        give_up, seen = time.monotonic() + seconds, 0
        while time.monotonic() < give_up:
            for attempt in self.attempts[seen:]:
                seen += 1
                if attempt.asked >= after and holds(attempt):
                    return attempt
            time.sleep(0.01)
        last = self.attempts[-1].answer if self.attempts else "nothing was asked"
        raise Broken(f"{self.what}: not within {seconds:g} s; last answer: {last}")

    def failures(self, *, after: float) -> int:
        """Count attempts without an answer since a time."""
        return sum(1 for attempt in self.attempts if attempt.asked >= after and attempt.answer is None)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            said = json.loads(line)
            self.attempts.append(Attempt(said["asked"], said["at"], said["answer"]))


def look(run: Run, node: StreetNode, address: str) -> tuple[Sight, Sight]:
    """Start asking for a tenant's application by address and by name; return both streams."""
    packets = Sight.start(run, node, f"a packet from {node.camera} to {address}:8080", "http", address, "8080")
    name = f"hello.{node.tenant}.mec.internal"
    names = Sight.start(run, node, f"the name {name} at {node.camera}", "dns", node.access_address, name)
    return packets, names
