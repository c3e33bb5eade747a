"""SECURITY.md's claims: each row names an attacker who is described, code that exists, and a test that exists."""

import ast
import functools
import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LINKS = range(1, 13)
COLUMNS = ["#", "claim", "attacker", "check", "negative test"]


class Row(NamedTuple):
    number: str
    claim: str
    attacker: str
    check: str
    test: str


def read_table(text: str, columns: list[str]) -> list[list[str]]:
    """Return the cells of the table with these columns; raises if there is none, or if it holds no row."""
    lines = iter(text.splitlines())
    for line in lines:
        if cells(line) == columns:
            break
    else:
        raise ValueError(f"there is no table with the columns {columns}")
    assert set(next(lines)) <= set("|-: ")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    if not rows:
        raise ValueError("the table is empty")
    if any(len(row) != len(columns) or not all(row) for row in rows):
        raise ValueError("a row has another number of cells, or an empty one")
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def quoted(cell: str) -> str:
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found, cell
    return found[1]


def check_exists(check: str) -> None:
    """Import a `module:function` or `module:Class.method`; raises if it is not there or nothing that is called."""
    name, _, path = check.partition(":")
    found: Any = importlib.import_module(name)
    for part in path.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{check} is not called")


@functools.cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [Row(*row) for row in read_table(TEXT, COLUMNS)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "| # | claim | attacker | check | negative test |\n|---|---|---|---|---|\n",
        "| # | claim | attacker | check | negative test |\n|---|---|---|---|---|\n| 1 | a | b | c |\n",
        "| # | claim | attacker | check | negative test |\n|---|---|---|---|---|\n| 1 | a | b | c | |\n",
    ],
    ids=["nothing", "no row", "a cell missing", "an empty cell"],
)
def test_a_table_that_claims_nothing_is_none(text):
    with pytest.raises(ValueError, match=r"table|row"):
        read_table(text, COLUMNS)


@pytest.mark.parametrize(
    "check", ["umec_core.nothing:verify", "umec_core.audit:nothing", "umec_core.audit:__all__", "umec_core.audit:"]
)
def test_code_that_is_not_there_is_noticed(check):
    with pytest.raises((ImportError, AttributeError, TypeError)):
        check_exists(check)
    check_exists("umec_core.audit:verify_export")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_the_check_exists(row):
    check_exists(quoted(row.check))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_the_negative_test_exists(row):
    file, _, name = quoted(row.test).partition("::")
    assert re.fullmatch(r"tests/[a-z_]+/test_[a-z0-9_]+\.py", file)
    assert name in names_in(file)


def test_every_link_has_claims():
    links = {int(row.number.partition(".")[0]) for row in ROWS}
    assert links == {0, *LINKS}


def test_rows_are_numbered_in_order_and_say_different_things():
    numbers = [tuple(int(part) for part in row.number.split(".")) for row in ROWS]
    assert numbers == sorted(numbers)
    for link in (0, *LINKS):
        own = [number for of, number in numbers if of == link]
        assert own == list(range(1, len(own) + 1))
    assert len({row.claim for row in ROWS}) == len(ROWS)


def test_every_attacker_is_described():
    described = {name for name, *_ in read_table(TEXT, ["attacker", "has", "wants"])}
    named = {row.attacker for row in ROWS}
    assert named - described == set()
    assert described - named == set()


def test_what_a_stolen_node_does_not_give_is_claimed():
    taken = read_table(TEXT, ["attack", "gives", "does not give", "claims"])
    known = {row.number for row in ROWS}
    for attack, _, _, claims in taken:
        named = claims.split(", ")
        assert set(named) <= known, attack
        assert len(set(named)) == len(named), attack
