"""docs/attacks.md: each attack names a test that exists, and no table is empty."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAD = "| attack | refused with | test |"
ROW = re.compile(r"\| [^|]+ \| [^|]+ \| `(tests/[a-z_/]+\.py)::(test_\w+)` \|")


@functools.cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def tables() -> dict[str, list[str]]:
    """Return the rows of each section."""
    sections = (ROOT / "docs/attacks.md").read_text(encoding="utf-8").split("\n## ")[1:]
    found = {}
    for section in sections:
        title, *lines = section.splitlines()
        assert HEAD in lines, title
        found[title] = [line for line in lines[lines.index(HEAD) + 2 :] if line.startswith("|")]
    return found


@pytest.mark.parametrize("title", tables())
def test_each_attack_has_its_test(title: str) -> None:
    rows = tables()[title]
    assert rows
    for row in rows:
        named = ROW.fullmatch(row)
        assert named, row
        assert named[2] in names_in(named[1]), row
