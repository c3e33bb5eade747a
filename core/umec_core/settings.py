"""Settings: a TOML file and the environment become one validated, immutable object, or all their faults at once.

A setting `ports.management` is `[ports] management = 8443` in the file and `UMEC_PORTS__MANAGEMENT=8443` in the
environment, which wins. An unknown name is a fault in both: a misspelt limit must not be no limit.
"""

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from umec_core.errors import Invalid

__all__ = ["SettingsInvalid", "load_settings"]

T = TypeVar("T", bound=BaseModel)

MAX_FILE: Final = 1024 * 1024
"""Bytes of a settings file."""

SHARED: Final = frozenset({"VECTORS"})
"""Names after the prefix that are not settings: where tests find vectors."""


class SettingsInvalid(Invalid):
    """The settings cannot be used; `faults` lists every reason."""

    code = "settings-invalid"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults), advice="correct the settings file or the environment")
        self.faults = faults


def load_settings(
    model: type[T],
    *,
    file: Path | None,
    environ: Mapping[str, str],
    prefix: str = "UMEC_",
    shared: Collection[str] = SHARED,
) -> T:
    """Return the settings of a file (None: no file) overlaid with variables that begin with `prefix`.

    `model` should be frozen with `extra="forbid"`. A value from the environment is JSON where it parses as an object
    or array, text otherwise. Raises `SettingsInvalid` with all faults.
    """
    faults: list[str] = []
    values = _read(file, faults) if file is not None else {}
    for name in sorted(environ):
        setting = name.removeprefix(prefix)
        if name.startswith(prefix) and setting not in shared:
            _overlay(values, setting.lower().split("__"), environ[name], name, faults)
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        faults += [_describe(fault) for fault in error.errors(include_url=False, include_input=False)]
        raise SettingsInvalid(faults) from None
    if faults:
        raise SettingsInvalid(faults)
    return settings


def _read(file: Path, faults: list[str]) -> dict[str, Any]:
    try:
        data = file.read_bytes()
        if len(data) > MAX_FILE:
            faults.append(f"{file} has more than {MAX_FILE} bytes")
            return {}
        return tomllib.loads(data.decode())
    except OSError as error:
        faults.append(f"{file} cannot be read: {error.strerror}")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.append(f"{file} is not TOML: {error}")
    return {}


def _overlay(values: dict[str, Any], path: list[str], text: str, name: str, faults: list[str]) -> None:
    for step in path[:-1]:
        values = values.setdefault(step, {})
        if not isinstance(values, dict):
            faults.append(f"{name} is within a setting that is not a table")
            return
    values[path[-1]] = _value(text)


def _value(text: str) -> Any:  # noqa: ANN401 - the model says what it has to be
    if text[:1] in {"[", "{"}:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _describe(fault: Any) -> str:  # noqa: ANN401 - pydantic gives dictionaries without a type
    where = ".".join(str(step) for step in fault["loc"])
    return f"{where or 'settings'}: {fault['msg']}"
