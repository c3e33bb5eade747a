"""Fuzz every parser of what others send, guided by coverage (atheris), for so many seconds in all.

    python tests/fuzz [--seconds 60] [--jobs 2] [--target NAME …] [--keep FOLDER]

Inputs that were found to be interesting are kept in FOLDER (.fuzz) and begun with the next time. A find is an exception
that is none of the target's errors, an input that takes longer than SLOW seconds, or one that takes more memory than
it should; it is written to FOLDER/finds, and the exit status is 1. Mend it, and put it into
`tests/fuzz/regressions/TARGET`, where every test run tries it.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOOLS = ROOT / ".tools"
ATHERIS = TOOLS / "fuzz"
LOCK = HERE / "requirements.lock"

SLOW = 5
"""Seconds for one input; they are small, and a parser takes a few milliseconds."""
MEMORY_MB = 1024
"""For the whole process, which has some 200 before it begins."""
ALLOCATION_MB = 64
"""At once: a size that is believed before it is checked."""
MOST_SHOWN = 40
"""Lines of what a process that found something said."""


@dataclass(frozen=True)
class Outcome:
    """What became of one target. `said` is empty where nothing was found."""

    name: str
    runs: int
    covered: int
    said: str


def install() -> None:
    """Have atheris in `.tools/fuzz`, by the hashed lock, and import it from there."""
    kept = ATHERIS / "requirements.lock"
    if not kept.exists() or kept.read_bytes() != LOCK.read_bytes():
        line = [TOOLS / "bin" / "uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", ATHERIS]
        subprocess.run([*line, "--require-hashes", "-r", LOCK], check=True)
        kept.write_bytes(LOCK.read_bytes())
    sys.path.append(str(ATHERIS))


def instrumented() -> tuple[Any, Any]:
    """Return atheris, and the module of targets with all of ours that it imports instrumented."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["umec_attest", "umec_core"]):
        return atheris, importlib.import_module("targets")


def sow(folder: Path) -> None:
    """Write the seeds of all targets down."""
    seeds = importlib.import_module("seeds")
    with tempfile.TemporaryDirectory() as name:
        made = seeds.make_seeds(Path(name), vectors=seeds.shared_vectors())
    for target, contents in made.items():
        corpus = folder / "corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(contents):
            (corpus / f"seed-{number}").write_bytes(content)


class Fuzzing:
    """Targets of a process that has imported them: each is fuzzed by a fork of it."""

    def __init__(self, folder: Path, atheris: Any, targets: Any) -> None:
        self._folder = folder
        self._atheris = atheris
        self._targets = targets.TARGETS

    def all(self, names: Sequence[str], seconds: float, jobs: int) -> Iterator[Outcome]:
        """Fuzz each for so long, so many at once."""
        waiting, running = list(names), {}
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[self._start(name, seconds)] = name
            process, status = os.wait()
            name = running.pop(process)
            yield self._outcome(name, os.waitstatus_to_exitcode(status))

    def _start(self, name: str, seconds: float) -> int:
        process = os.fork()
        if process == 0:
            log = os.open(self._log(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._fuzz(name, seconds)
            os._exit(0)
        return process

    def _fuzz(self, name: str, seconds: float) -> None:
        target = self._targets[name]

        def run(data: bytes) -> None:
            try:
                target.run(data)
            except target.errors:
                return

        options = {
            "max_total_time": max(1, round(seconds)),
            "timeout": SLOW,
            "rss_limit_mb": MEMORY_MB,
            "malloc_limit_mb": ALLOCATION_MB,
            "max_len": target.longest,
            "artifact_prefix": f"{self._folder}/finds/{name}-",
            "print_final_stats": 1,
        }
        folders = [self._folder / "corpus" / name, HERE / "regressions" / name]
        line = [name, *(f"-{option}={value}" for option, value in options.items())]
        self._atheris.Setup(line + [str(folder) for folder in folders if folder.is_dir()], run)
        self._atheris.Fuzz()

    def _outcome(self, name: str, status: int) -> Outcome:
        said = self._log(name).read_text(errors="replace")
        failed = "\n".join(said.splitlines()[-MOST_SHOWN:]) if status != 0 else ""
        runs, covered = r"stat::number_of_executed_units:\s*(\d+)", r"cov: (\d+)"
        return Outcome(name, _last(runs, said), _last(covered, said), failed)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _last(pattern: str, text: str) -> int:
    return int(["0", *re.findall(pattern, text)][-1])


def main() -> None:
    """Share the seconds among the targets, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--target", action="append")
    parser.add_argument("--keep", type=Path, default=ROOT / ".fuzz")
    given = parser.parse_args()
    install()
    atheris, targets = instrumented()
    names = given.target or list(targets.TARGETS)
    (given.keep / "finds").mkdir(parents=True, exist_ok=True)
    sow(given.keep)
    began, found, runs = time.monotonic(), [], 0
    fuzzing = Fuzzing(given.keep.resolve(), atheris, targets)
    for outcome in fuzzing.all(names, given.jobs * given.seconds / len(names), given.jobs):
        state = f"FOUND:\n{outcome.said}" if outcome.said else "nothing found"
        say(f"{outcome.name:<16} {outcome.runs:>10,} inputs, {outcome.covered:>6,} branches   {state}")
        runs += outcome.runs
        found += [outcome.name] if outcome.said else []
    spent = time.monotonic() - began
    say(f"{runs:,} inputs to {len(names)} targets in {spent:,.0f} s; found in: {', '.join(sorted(found)) or 'none'}")
    sys.exit(bool(found))


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
