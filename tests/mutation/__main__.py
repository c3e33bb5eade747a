"""Remove each check of the security-relevant modules, one at a time: at least one test must fail each time.

`python tests/mutation [AREA …]`; `modules.toml` names the areas. Exit status 1 if a mutant survives.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
from judge import Judge, Outcome
from mutants import Mutant, instrument
from switch import install

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
KEPT: Final = ROOT / ".mutants"


def main() -> int:
    """Judge the areas that were asked for, each in a process of its own."""
    areas = tomllib.loads((HERE / "modules.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(areas)}; all without one")
    parser.add_argument("--module", action="append", default=[], help="only this module (several times for several)")
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="only this mutant, or this function")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many of an area, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object a mutant")
    chosen = parser.parse_args()
    if unknown := set(chosen.areas) - areas.keys():
        parser.error(f"no such area: {', '.join(sorted(unknown))}")
    status = 0
    for name in chosen.areas or areas:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os._exit(_area(name, areas[name], chosen))
        status |= os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status


def _area(name: str, area: dict[str, list[str]], chosen: argparse.Namespace) -> int:
    files = _files(area["modules"])
    found = [mutant for module, file in files.items() for mutant in instrument(file.read_text("utf-8"), module)[1]]
    excused = {(one["at"], one["removed"]) for one in _equivalent() if one["at"].partition(":")[0] in files}
    if stale := excused - {(mutant.place, mutant.removed) for mutant in found}:
        return _say(f"equivalent.toml excuses what is not there: {stale}") or 2
    wanted = [
        mutant
        for mutant in found
        if (mutant.place, mutant.removed) not in excused
        and (not chosen.module or mutant.module in chosen.module)
        and (not chosen.only or mutant.id in chosen.only or mutant.place in chosen.only)
    ]
    if chosen.sample is not None:
        wanted = random.Random(chosen.seed).sample(wanted, min(chosen.sample, len(wanted)))  # noqa: S311
    if chosen.list:
        return sum(_say(_line(mutant, files)) for mutant in wanted)
    if not wanted:
        return 0
    told = _Told(len(wanted), files, as_json=chosen.json)
    judge = Judge(wanted, key=_key(area, files), cache=_kept() / f"{name}.json", jobs=chosen.jobs, tell=told)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    os.chdir(ROOT)
    install(list(files))
    # Plain: else pytest imports all that comes with a plugin of its own, which this package does, past the switches.
    options = ["-qq", "--no-header", "--capture=no", "-p", "no:cacheprovider", "--assert=plain"]
    status = int(
        pytest.main([*options, "-m", "not vectors and not system and not vm", *area["tests"]], plugins=[judge])
    )
    told.end(name, judge.unfit)
    return status or int(bool(told.survivors or judge.unfit))


def _files(names: list[str]) -> dict[str, Path]:
    """Return the file of each module, and of each in a package; raises if a name is of neither."""
    files: dict[str, Path] = {}
    for name in names:
        folder = ROOT / name.partition(".")[0].removeprefix("umec_")
        place = folder / name.replace(".", "/")
        for file in sorted(place.rglob("*.py")) or [place.with_suffix(".py").resolve(strict=True)]:
            parts = file.relative_to(folder).with_suffix("").parts
            files[".".join(parts).removesuffix(".__init__")] = file
    return {module: file for module, file in files.items() if ".migrations." not in module}


def _equivalent() -> list[dict[str, str]]:
    excused: list[dict[str, str]] = tomllib.loads((HERE / "equivalent.toml").read_text("utf-8")).get("equivalent", [])
    if any(not one["reason"] for one in excused):
        raise ValueError("equivalent.toml: every entry has its reason")
    return excused


def _key(area: dict[str, list[str]], files: dict[str, Path]) -> str:
    """Return the SHA-256 (hex) of all that the first run stands on: the code that it runs, its tests and this tool."""
    code = {ROOT / file.relative_to(ROOT).parts[0] for file in files.values()}
    tool = (HERE / "mutants.py", HERE / "switch.py")
    places = sorted({*code, *(ROOT / tests for tests in area["tests"]), *tool})
    found = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    texts = [file for file in found if file.suffix in {".py", ".cedar", ".toml"}]
    return hashlib.sha256(b"".join(hashlib.sha256(text.read_bytes()).digest() for text in texts)).hexdigest()


def _kept() -> Path:
    KEPT.mkdir(exist_ok=True)
    return KEPT


def _line(mutant: Mutant, files: dict[str, Path]) -> str:
    return f"{mutant.id}  {files[mutant.module].relative_to(ROOT)}:{mutant.line}  {mutant.removed}"


def _say(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return 0


class _Told:
    """Tells of outcomes as they come, and of all at the end."""

    def __init__(self, total: int, files: dict[str, Path], *, as_json: bool) -> None:
        self._total = total
        self._files = files
        self._json = as_json
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter()
        self.survivors: list[Mutant] = []

    def __call__(self, outcome: Outcome) -> None:
        self._counts[outcome.verdict] += 1
        if self._json:
            _say(json.dumps(outcome.to_json()))
        if outcome.verdict == "survived":
            self.survivors.append(outcome.mutant)
            if not self._json:
                _say(f"survived: {_line(outcome.mutant, self._files)}")
        done, seconds = self._counts.total(), time.monotonic() - self._started
        if sys.stderr.isatty():
            left = seconds / done * (self._total - done)
            sys.stderr.write(f"\r{done}/{self._total}, {len(self.survivors)} survived, {left:.0f} s left \x1b[K")

    def end(self, area: str, unfit: list[str]) -> None:
        counts: dict[str, Any] = {"mutants": self._counts.total(), **self._counts}
        seconds = round(time.monotonic() - self._started)
        if self._json:
            _say(json.dumps({"area": area, **counts, "unfit": unfit, "seconds": seconds}))
            return
        for test in unfit:
            _say(f"fails with every check in place: {test}")
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        _say(f"{area}: {told}; {seconds} s")


if __name__ == "__main__":
    sys.exit(main())
