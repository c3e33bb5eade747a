"""Run the tests of an area against its mutants: collected once, then a fork for each mutant.

A first run of all tests, with every check in place, writes down how long each takes and which checks refused in it.
Only those tests can notice that a check is gone; they run fastest first, until one fails.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from forks import Fork
from mutants import Mutant
from switch import MAYBE, note_in, turn_off

__all__ = ["Judge", "Outcome"]

LEAST_SECONDS: Final = 30.0
"""The time of a mutant, and `TIMES` what its tests took before: a server without a check may wait for ever."""
TIMES: Final = 4.0
POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant: `test` is the one that noticed, `tests` counts those in which its check refuses."""

    mutant: Mutant
    verdict: Literal["killed", "timeout", "survived"]
    test: str | None
    tests: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return {"id", "line", "removed", "verdict", "test", "tests", "seconds"}."""
        flat = asdict(self)
        return {**flat.pop("mutant"), **flat}


class Judge:
    """A pytest plugin that takes the place of the loop that runs the tests.

    `cache` keeps what the first run showed, for as long as `key` is the same. `tell` hears of each outcome.
    """

    def __init__(
        self, mutants: Sequence[Mutant], *, key: str, cache: Path, jobs: int, tell: Callable[[Outcome], None]
    ) -> None:
        self._mutants = mutants
        self._key = key
        self._cache = cache
        self._jobs = jobs
        self._tell = tell
        self._items: dict[str, pytest.Item] = {}
        self._session: pytest.Session
        self._failed = False
        self.unfit: list[str] = []
        """Tests that fail with every check in place: they judge nothing."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge all mutants."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        self._session, self._items = session, {item.nodeid: item for item in session.items}
        _make_repeatable()
        seconds, refusing = self._first_run()
        waiting = list(reversed(self._mutants))
        running: list[tuple[Fork, Mutant, list[str]]] = []
        try:
            while waiting or running:
                while waiting and len(running) < self._jobs:
                    mutant = waiting.pop()
                    tests = refusing.get(mutant.id) or refusing.get(mutant.id + MAYBE) or []
                    tests.sort(key=lambda name: seconds[name])
                    if not tests:
                        self._tell(Outcome(mutant, "survived", None, 0, 0.0))
                        continue
                    time_limit = LEAST_SECONDS + TIMES * sum(seconds[name] for name in tests)
                    running.append((self._without(mutant, tests, time_limit), mutant, tests))
                time.sleep(POLL_SECONDS)
                for one in [one for one in running if one[0].ended()]:
                    running.remove(one)
                    self._tell(_outcome(*one))
        finally:
            for fork, *_ in running:
                fork.kill()
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember, in a fork, that a test failed."""
        self._failed = self._failed or report.failed

    def _first_run(self) -> tuple[dict[str, float], dict[str, list[str]]]:
        """Return how long each test took, and by mutant in which tests its check refused."""
        kept = json.loads(self._cache.read_text(encoding="utf-8")) if self._cache.exists() else {}
        if kept.get("key") != self._key:
            kept = {"key": self._key, "seconds": {}, "failed": [], "refusing": {}}
            files = sorted({name.partition("::")[0] for name in self._items})
            shares = [set(files[start :: self._jobs]) for start in range(self._jobs)]
            forks = [Fork(lambda folder, share=share: self._with_all(share, folder)) for share in shares]  # type: ignore[misc]
            while not all([fork.result is not None or fork.ended() for fork in forks]):  # noqa: C419 - ask each one
                time.sleep(POLL_SECONDS)
            for fork in forks:
                if fork.result is None:
                    raise RuntimeError("the tests do not run to their end with every check in place")
                kept["seconds"].update(fork.result["seconds"])
                kept["failed"].extend(fork.result["failed"])
                for test, mutant in fork.result["refused"]:
                    kept["refusing"].setdefault(mutant, []).append(test)
            self._cache.write_text(json.dumps(kept), encoding="utf-8")
        self.unfit = kept["failed"]
        fit = kept["seconds"].keys() - set(self.unfit)
        return kept["seconds"], {
            mutant: [one for one in tests if one in fit] for mutant, tests in kept["refusing"].items()
        }

    def _with_all(self, files: set[str], folder: Path) -> dict[str, Any]:
        notes = folder / "notes"
        notes.touch()
        notes.chmod(0o666)
        note_in(str(notes))
        names = [name for name in self._items if name.partition("::")[0] in files]
        results = list(self._run(names))
        return {
            "seconds": {name: seconds for name, _, seconds in results},
            "failed": [name for name, failed, _ in results if failed],
            "refused": [line.split("\t") for line in notes.read_text(encoding="utf-8").splitlines()],
        }

    def _without(self, mutant: Mutant, tests: Sequence[str], seconds: float) -> Fork:
        def work(_: Path) -> dict[str, Any]:
            turn_off(mutant.id)
            with contextlib.closing(self._run(tests)) as results:
                return {"test": next((name for name, failed, _ in results if failed), None)}

        return Fork(work, seconds=seconds)

    def _run(self, names: Sequence[str]) -> Iterator[tuple[str, bool, float]]:
        """Run tests one by one; yields name, whether it failed, and seconds."""
        following = {name: self._items[then] for name, then in pairwise(names)}
        try:
            for name in names:
                started, self._failed = time.monotonic(), False
                item = self._items[name]
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following.get(name))
                yield name, self._failed, time.monotonic() - started
        finally:
            self._session._setupstate.teardown_exact(None)


def _make_repeatable() -> None:
    """Let property tests try the same examples each time. pytest wants to be the first to import hypothesis."""
    from hypothesis import HealthCheck, settings  # noqa: PLC0415

    every = list(HealthCheck)
    settings.register_profile("mutants", derandomize=True, database=None, deadline=None, suppress_health_check=every)
    settings.load_profile("mutants")


def _outcome(fork: Fork, mutant: Mutant, tests: Sequence[str]) -> Outcome:
    seconds = round(time.monotonic() - fork.started, 2)
    if fork.late:
        return Outcome(mutant, "timeout", None, len(tests), seconds)
    if fork.result is None:
        return Outcome(mutant, "killed", "the test process ended", len(tests), seconds)
    test = fork.result["test"]
    return Outcome(mutant, "survived" if test is None else "killed", test, len(tests), seconds)
