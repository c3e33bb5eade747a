"""The first-hour page, literally: its commands run in their order on this machine, and print what it says."""

import os
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-hour.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 900.0
"""For the whole page, on a machine that does other things too; it takes a minute alone."""


@dataclass(frozen=True, slots=True)
class Step:
    """A block of commands and what they print; None where the page does not say."""

    commands: str
    printed: str | None


def steps(text: str) -> list[Step]:
    """Return the blocks of a page: each `sh` with the `text` that follows it."""
    found: list[Step] = []
    for kind, content in BLOCK.findall(text):
        if kind == "sh":
            found.append(Step(content, None))
        else:
            assert found, "an output without commands"
            assert found[-1].printed is None, f"two outputs for {found[-1].commands!r}"
            found[-1] = Step(found[-1].commands, content)
    return found


def matches(printed: list[str], expected: list[str]) -> bool:
    """Tell whether lines are as expected: `…` in a line is any text, and alone in one any number of lines."""
    if not expected:
        return not printed
    if expected[0] == "…":
        return any(matches(printed[skipped:], expected[1:]) for skipped in range(len(printed) + 1))
    if not printed:
        return False
    pattern = ".*".join(re.escape(part) for part in expected[0].strip().split("…"))
    return re.fullmatch(pattern, printed[0].strip()) is not None and matches(printed[1:], expected[1:])


class Shell:
    """A shell that is fed block by block, as somebody types them; `umec try` in it reads on from the same input."""

    def __init__(self, home: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UMEC_")}
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=ROOT,
            env={**environment, "HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._limit = threading.Timer(SECONDS, self._process.kill)
        self._limit.start()

    def run(self, commands: str) -> list[str]:
        """Return the lines that commands print."""
        mark = secrets.token_hex(8)
        self._in.write(f"{commands}\necho {mark}\n")
        self._in.flush()
        lines = []
        for line in self._out:
            if line.rstrip() == mark:
                return lines
            lines.append(line.rstrip("\n"))
        pytest.fail("\n".join([f"the shell ended in {commands!r}:", *lines]))

    def close(self) -> None:
        self._in.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()
        self._limit.cancel()


@pytest.fixture
def shell(tmp_path) -> Iterator[Shell]:
    opened = Shell(tmp_path)
    yield opened
    opened.close()


def test_the_page_is_read_as_it_is_written():
    page = "```sh\na\nb\n```\n```text\n1\n…\n```\ntext\n```sh\nc\n```\n"
    assert steps(page) == [Step("a\nb\n", "1\n…\n"), Step("c\n", None)]


@pytest.mark.parametrize(
    ("printed", "expected", "fits"),
    [
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["a", "b"], ["a"], False),
        (["a"], ["a", "b"], False),
        ([], ["a"], False),
        (["id 7 of city"], ["id … of city"], True),
        (["id 7 of metro"], ["id … of city"], False),
        (["[a] *"], ["[a] *"], True),
        (["x", "y", "z"], ["…", "z"], True),
        (["x", "y", "z"], ["…", "y"], False),
        (["z"], ["…", "z"], True),
        (["a"], ["a", "  …"], False),
        (["a", "  b"], ["a", "  …"], True),
    ],
)
def test_outputs_are_compared(printed, expected, fits):
    assert matches(printed, expected) is fits


@pytest.mark.system
def test_a_newcomer_reaches_a_running_own_application(shell, tmp_path):
    *body, last = steps(PAGE.read_text(encoding="utf-8"))
    assert "umec try\n" in [step.commands for step in body]
    assert last.commands == "exit\n"
    for step in body:
        printed = shell.run(step.commands)
        if step.printed is not None:
            assert matches(printed, step.printed.splitlines()), "\n".join([step.commands, "printed:", *printed])
    shell.run(last.commands)
    assert (tmp_path / "greeter" / "appd.json").exists()
    assert not Path("/run/netns/node-a").exists()
