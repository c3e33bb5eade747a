"""What holds for every command: help, JSON, no server package on a node, and one voice for refusals."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from umec_core.errors import Refused
from umec_platform.cli.main import COMMANDS, NOUNS, build
from umec_platform.cli.manual import MANUAL
from umec_platform.cli.output import emit, fail, refusals

SERVER = {"alembic", "authlib", "cedarpy", "fastapi", "sigstore", "sqlalchemy", "starlette", "uvicorn"}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    else:
        yield path, command


ROOT = typer.main.get_command(build())
LEAVES = dict(leaves(ROOT))
GROUPS = [(), *((noun,) for noun in NOUNS)]


def test_every_noun_has_its_commands():
    assert set(ROOT.commands) == {*NOUNS, *COMMANDS}
    assert {path[0] for path in LEAVES} == set(ROOT.commands)


@pytest.mark.parametrize("path", [*GROUPS, *LEAVES], ids=" ".join)
def test_help_is_there(umec, path):
    said = umec(*path, "--help")
    assert said.status == 0
    assert "Usage" in said.out


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_a_group_alone_shows_its_help(umec, path):
    assert "Usage" in umec(*path).out


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_a_command_says_what_it_does_and_speaks_json(path):
    command = LEAVES[path]
    assert command.help
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    undescribed = [one.name for one in command.params if not getattr(one, "help", None) and not one.hidden]
    assert undescribed == []


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_is_a_manual_page(umec, monkeypatch, path):
    """An example that the command itself reads, what the exit status means, and every variable beside its option."""
    monkeypatch.setenv("COLUMNS", "400")
    page = MANUAL.get(" ".join(path))
    assert page is not None, "write its page in umec_platform.cli.manual"
    said = umec(*path, "--help").out
    assert f"Example: {page.example}" in said
    assert f"Exit status: {page.exits}." in said
    assert all(f"[env var: {one.envvar}]" in said for one in LEAVES[path].params if getattr(one, "envvar", None))
    words = shlex.split(page.example)
    assert tuple(words[1 : len(path) + 1]) == path
    monkeypatch.setenv("UMEC_CREDENTIAL", "operator.json")
    context = LEAVES[path].make_context(" ".join(path), words[len(path) + 1 :])
    assert {one.name for one in LEAVES[path].params if one.required} <= context.params.keys()


def test_the_manual_has_no_page_without_a_command():
    assert {" ".join(path) for path in LEAVES} == MANUAL.keys()


def completed(*words: str) -> list[str]:
    """What bash offers after these words, by the script that `umec` itself writes."""
    script = (
        'eval "$(_UMEC_COMPLETE=source_bash umec)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_umec_completion umec; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = ["bash", "--norc", "-c", script, "bash", *words]
    return subprocess.run(line, capture_output=True, check=True, text=True, env=environment).stdout.split()


def test_bash_completes_nouns_commands_and_options():
    assert set(completed("umec", "")) == {*NOUNS, *COMMANDS}
    assert set(completed("umec", "node", "")) == {path[1] for path in LEAVES if path[0] == "node"}
    assert completed("umec", "node", "qua") == ["quarantine"]
    assert "--reason" in completed("umec", "node", "quarantine", "--re")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(shell):
    umec = Path(sys.executable).parent / "umec"
    environment = os.environ | {"_UMEC_COMPLETE": f"source_{shell}"}
    said = subprocess.run([umec], capture_output=True, check=False, text=True, env=environment).stdout
    assert f"complete_{shell}" in said


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_an_unknown_option_is_an_error_of_usage(umec, path):
    said = umec(*path, "--no-such-option")
    assert said.status == 2
    assert "--no-such-option" in said.err


@pytest.mark.parametrize("words", [("node",), ("node", "run")])
def test_help_for_a_node_loads_no_server(words):
    program = (
        "import sys\nfrom umec_platform.cli.main import build\n"
        "try:\n    build()(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print('\\n'.join(sys.modules))\n"
    )
    said = subprocess.run([sys.executable, "-c", program, *words, "--help"], capture_output=True, check=True, text=True)
    loaded = {name.split(".")[0] for name in said.stdout.split()}
    assert "umec_platform" in loaded
    assert loaded & SERVER == set()


# --- refusals --------------------------------------------------------------------------------------------------------


class Enough(Refused):
    code = "enough"


@refusals
def _refusing(*, advice: str | None = None, as_json: bool = False) -> None:  # noqa: ARG001
    raise Enough("there is [enough] already", advice=advice)


def test_a_refusal_is_readable(capsys):
    with pytest.raises(typer.Exit) as ended:
        _refusing(advice="wait")
    assert ended.value.exit_code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "enough" in said.err
    assert "there is [enough] already" in said.err
    assert "what to do: wait" in said.err


def test_a_refusal_is_one_object(capsys):
    with pytest.raises(typer.Exit) as ended:
        _refusing(as_json=True)
    assert ended.value.exit_code == 1
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == ('{"refused": true, "code": "enough", "detail": "there is [enough] already", "advice": null}\n')


def test_what_the_machine_refuses_has_a_code_too(capsys, tmp_path):
    @refusals
    def writing(*, as_json: bool = False) -> None:  # noqa: ARG001
        (tmp_path / "absent" / "file").write_text("")

    with pytest.raises(typer.Exit):
        writing(as_json=True)
    assert '"code": "system-refused"' in capsys.readouterr().out


def test_a_defect_is_not_hidden():
    @refusals
    def broken() -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        broken()


def test_results_have_two_forms(capsys):
    emit({"a": 1, "b": "ü"}, as_json=True)
    emit({"a": 1, "b": "ü"}, as_json=False)
    emit({"a": 1}, as_json=False, human="one")
    assert capsys.readouterr().out == '{"a": 1, "b": "ü"}\na: 1\nb: ü\none\n'


def test_a_value_of_another_option_is_not_json(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["umec", "node", "call", "--data", "--json"])
    with pytest.raises(typer.Exit):
        fail(Enough("no"), as_json=False)
    assert capsys.readouterr().out == ""
