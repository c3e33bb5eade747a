"""What the pages say: commands, options, modules and paths exist, linked files are there, targets are made."""

import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from umec_platform.cli.main import build

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if not page.name.startswith(".")
)
SHELL = re.compile(r"^(?: {4}|\t)(.+)$")
FENCE = re.compile(r"^\s*```")
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
MODULE = re.compile(r"umec_[a-z]+(\.[a-z_]+)*")
PATH = re.compile(r"(?:GET|POST|PUT|DELETE) (/[a-z0-9_/-]+)")
ANSWERED_BY_ALL = {"--help"}


def code(text: str) -> list[str]:
    """Return the lines of code on a page: fenced, indented and inline; continued lines are joined."""
    lines, fenced, prose = [], False, []
    for line in text.replace("\\\n", " ").splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif fenced:
            lines.append(line)
        elif indented := SHELL.match(line):
            lines.append(indented[1])
        else:
            prose.append(line)
    return lines + INLINE.findall("\n".join(prose))


def commands(text: str, program: str) -> list[list[str]]:
    """Return the words after `program` of each of its calls on a page, up to a comment, a pipe or another command."""
    found = []
    for line in code(text):
        plain = re.sub(r"^\$ ", "", line.strip())
        if not re.match(rf"(?:[A-Z_]+=\S+ )*(?:sudo )?{program}\b(?!\.)", plain):
            continue
        for call in re.split(r"&&|\|(?=\s)|;", plain.split(" #")[0]):
            words = re.sub(r"^\s*(?:[A-Z_]+=\S+ )*(?:sudo )?", "", call)
            if words.split(" ")[0] == program:
                found.append(words.split()[1:] if "'" in words and words.count("'") % 2 else shlex.split(words)[1:])
    return found


def faults(words: list[str]) -> list[str]:
    """Walk the command tree with these words; return what is not there."""
    here, rest = typer.main.get_command(build()), list(words)
    while rest and hasattr(here, "commands"):
        word = rest.pop(0)
        if word in {"…", "..."} or word.startswith("-"):
            return [] if word in {"…", "...", "--help", "--install-completion", "--show-completion"} else [word]
        names = re.fullmatch(r"\{(.+)\}", word)
        several = (names[1].split(",") if names else word.split("|")) if names or "|" in word else [word]
        missing = [name for name in several if name not in here.commands]
        if missing:
            return missing
        here = here.commands[several[0]]
        if len(several) > 1:
            return []
    known = {option for parameter in here.params for option in (*parameter.opts, *parameter.secondary_opts)}
    several = [part for word in rest for part in word.strip("[]").split("|")]
    given = [word.partition("=")[0] for word in several if word.startswith("--")]
    return [option for option in given if option not in known | ANSWERED_BY_ALL]


def test_the_check_notices_what_is_not_there():
    assert commands("Call `umec node frobnicate --now`.\n\n    umec bake # cake\n", "umec") == [
        ["bake"],
        ["node", "frobnicate", "--now"],
    ]
    assert faults(["node", "frobnicate"]) == ["frobnicate"]
    assert faults(["bake"]) == ["bake"]
    assert faults(["node", "show", "NODE", "--loudly"]) == ["--loudly"]
    assert faults(["node", "show", "NODE", "--json"]) == []


def test_the_pages_are_there():
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/architecture.md"} <= set(PAGES)
    assert len(commands((ROOT / "README.md").read_text(encoding="utf-8"), "umec")) > 3


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = {" ".join(["umec", *words]): faults(words) for words in commands(text, "umec")}
    assert {command: wrong for command, wrong in found.items() if wrong} == {}


def missing(name: str) -> bool:
    """Tell whether there is no such module."""
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:
        return True


@functools.cache
def source() -> str:
    return "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("*/umec_*/**/*.py"))


def not_served(path: str) -> str | None:
    """Return the first part of a path that is in no service's code."""
    first, second, *rest = path.strip("/").split("/")
    return next((part for part in (f"{first}/{second}", *rest) if f"/{part}" not in source()), None)


@pytest.mark.parametrize("page", PAGES)
def test_every_module_on_a_page_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {name for words in INLINE.findall(text) if (name := words.partition(":")[0]) and MODULE.fullmatch(name)}
    assert [name for name in sorted(named) if missing(name)] == []


def test_a_module_that_is_not_there_is_noticed():
    assert missing("umec_core.no_such_module")
    assert missing("umec_core.audit.no_such_module")
    assert not missing("umec_core.audit")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_a_page_is_served(page):
    """A request on a page has its path, part by part, in the code of some service."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert {path: part for path in PATH.findall(text) if (part := not_served(path))} == {}


def test_a_path_that_nobody_serves_is_noticed():
    assert not_served("/attest/v1/no-such-thing") == "no-such-thing"
    assert not_served("/attest/v9/nodes") == "attest/v9"
    assert not_served("/attest/v1/nodes") is None


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in LINK.findall(text) if "://" not in link and not link.startswith("#")]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_target_on_a_page_is_made(page):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / page).read_text(encoding="utf-8")
    asked = {words[0] for words in commands(text, "make") if words}
    assert asked - targets == set()
