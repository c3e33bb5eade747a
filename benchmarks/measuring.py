"""What the benchmarks share: cores, memory, percentiles, and a row for each figure with its budget."""

import argparse
import json
import os
import platform
import resource
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = [
    "LOAD",
    "SERVER",
    "Row",
    "at_least",
    "at_most",
    "cpu_seconds",
    "options",
    "percentile",
    "pin",
    "publish",
    "resident_mb",
    "unpin",
]

SERVER = 0
LOAD = 1
"""Cores: what is measured has one, what asks has the other."""


@dataclass(frozen=True)
class Row:
    """One figure. With a budget it has to be at least that, or at most that where `most` is set."""

    what: str
    value: float
    unit: str
    budget: float | None = None
    most: bool = False

    def verdict(self) -> str:
        """Say whether the budget is met, and by how much."""
        if self.budget is None:
            return ""
        met = self.value <= self.budget if self.most else self.value >= self.budget
        sign, said = "≤" if self.most else "≥", "met" if met else "MISSED"
        if self.budget == 0:
            return f"none: {said}"
        return f"{sign} {self.budget:,}: {said}, {100 * self.value / self.budget:.0f} % of it"


def at_least(what: str, value: float, unit: str, budget: float) -> Row:
    """Return a figure that should be large."""
    return Row(what, value, unit, budget)


def at_most(what: str, value: float, unit: str, budget: float) -> Row:
    """Return a figure that should be small."""
    return Row(what, value, unit, budget, most=True)


def options(documentation: str | None, *, repeats: int = 5) -> argparse.ArgumentParser:
    """Return the parser of a benchmark's command line: `--json` and `--repeats`."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=repeats, help="series, of which the median is shown")
    return parser


def publish(rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the machine and the figures, with the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [*rows, Row("peak memory of the process that measured", peak, "MB")]
    if as_json:
        print(json.dumps({"machine": machine(), "figures": [asdict(row) for row in rows]}))
        return
    print("; ".join(f"{name} {value}" for name, value in machine().items()))
    for row in rows:
        number = f"{row.value:,.0f}" if row.value >= 100 or row.value == round(row.value) else f"{row.value:,.2f}"
        print(f"{row.what:<78} {number:>10} {row.unit:<6} {row.verdict()}".rstrip())


def machine() -> dict[str, str]:
    """Say what this ran on, and how busy it was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "machine": f"{os.cpu_count()} x {model}",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "load": load,
    }


def pin(core: int) -> None:
    """Stay on one core, where there are several, whichever one this process was started on."""
    cores = unpin()
    os.sched_setaffinity(0, {cores[core % len(cores)]})


def unpin() -> list[int]:
    """Take all cores again, and return them: who was started by a pinned process has that one's core alone."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0))


def cpu_seconds(pid: int) -> float:
    """Return how long a process has had a core: what a busy machine changes least."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int, *, peak: bool = False) -> float:
    """Return how much memory of a process is in RAM now, or was at most."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def percentile(values: Sequence[float], part: int) -> float:
    """Return the value below which `part` of a hundred lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[part - 1]
