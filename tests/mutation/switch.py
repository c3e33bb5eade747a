"""Import modules with their switches, and turn one check off.

`__keep__(id)` tells whether a check stays, and writes down which test asked; `__reach__(id)` does so for a check of
which nobody knows yet whether it refuses. `MUTANTS` names the modules, `MUTANT` the check that is off, `MUTANT_NOTES`
the file for `test TAB id` lines: other Python processes inherit all three.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any, Final

from mutants import instrument

__all__ = ["MAYBE", "install", "keep", "note_in", "turn_off"]

MODULES: Final = "MUTANTS"
OFF: Final = "MUTANT"
NOTES: Final = "MUTANT_NOTES"
MAYBE: Final = "?"
"""Behind a mutant in the notes: the test reached its check, which need not have refused."""

_state: dict[str, str | None] = {"off": os.environ.get(OFF), "notes": os.environ.get(NOTES)}
_noted: set[str] = set()


def keep(name: str) -> bool:
    """Tell whether the check stays."""
    if _state["notes"] is not None:
        _note(name)
    return name != _state["off"]


def _reach(name: str) -> bool:
    if _state["notes"] is not None:
        _note(f"{name}{MAYBE}")
    return name != _state["off"]


def _force(value: object, to_true: str, to_false: str) -> object:
    if value:
        return value if keep(to_false) else False
    return value if keep(to_true) else True


def _note(name: str) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    line = f"{test}\t{name}\n"
    if test and line not in _noted:
        _noted.add(line)
        with open(str(_state["notes"]), "a", encoding="utf-8") as notes:  # noqa: PTH123 - tests may replace Path's
            notes.write(line)


def turn_off(mutant: str) -> None:
    """Turn a check off here and in every process that is started from here."""
    _state["off"] = os.environ[OFF] = mutant
    os.environ[MODULES] = mutant.partition(":")[0]


def note_in(file: str) -> None:
    """Write down who asks, here and in every process that is started from here."""
    _state["notes"] = os.environ[NOTES] = file


def install(modules: Sequence[str]) -> None:
    """Import these modules with their switches, here and in every process that is started from here."""
    os.environ[MODULES] = ",".join(modules)
    sys.meta_path.insert(0, _Finder(frozenset(modules)))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, modules: frozenset[str]) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        tree, _ = instrument(self.get_data(self.path).decode(), fullname)
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        switches: dict[str, Any] = {"__keep__": keep, "__reach__": _reach, "__force__": _force}
        module.__dict__.update(switches)
        super().exec_module(module)
