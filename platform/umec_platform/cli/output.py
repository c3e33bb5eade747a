"""What commands say: readable text or one JSON object, and refusals with their code."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console

from umec_core.errors import UmecError
from umec_platform.cli.advice import advice_for

__all__ = ["SystemRefused", "emit", "fail", "refusals"]

P = ParamSpec("P")
R = TypeVar("R")

REFUSED_EXIT = 1

_errors = Console(stderr=True, soft_wrap=True, highlight=False)


class SystemRefused(UmecError):
    """This machine does not let the command do it: a file or folder that is not there, or not what it must be."""

    code = "system-refused"


def emit(value: Mapping[str, Any], *, as_json: bool, human: str | None = None) -> None:
    """Print a result: one line of JSON with `--json`, else `human`, else a line for each member."""
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
    elif human is not None:
        typer.echo(human)
    else:
        for name, member in value.items():
            typer.echo(f"{name}: {member if isinstance(member, str) else json.dumps(member, ensure_ascii=False)}")


def fail(error: UmecError, *, as_json: bool) -> NoReturn:
    """Say code, detail and advice, and end with exit status 1.

    With `as_json` they are one object on standard output, where a script looks for the result; else text on standard
    error.
    """
    advice = advice_for(error.code, error.advice)
    if as_json:
        refusal = {"refused": True, "code": error.code, "detail": error.detail, "advice": advice}
        typer.echo(json.dumps(refusal, ensure_ascii=False))
        raise typer.Exit(REFUSED_EXIT) from error
    _errors.print(f"[bold red]refused[/] [bold]{error.code}[/]:", end=" ")
    _errors.print(error.detail, markup=False)
    if advice is not None:
        _errors.print(f"  what to do: {advice}", markup=False)
    raise typer.Exit(REFUSED_EXIT) from error


def refusals(command: Callable[P, R]) -> Callable[P, R]:
    """Turn every `UmecError` of a command, and what the machine refuses, into a message and a non-zero exit status.

    The command says by its parameter `as_json` how it is to be said.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UmecError as error:
            fail(error, as_json=bool(kwargs.get("as_json")))
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            fail(SystemRefused(f"{where}{error.strerror or error}"), as_json=bool(kwargs.get("as_json")))

    return wrapped
