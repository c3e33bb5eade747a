"""Every finding that the code can tell is in the one table, with what to do; the page for operators is that table."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import umec_attest
from umec_attest import errors
from umec_attest.findings import FINDINGS, Tier, tier_of

PAGE = Path(__file__).parents[2] / "docs/findings.md"
TELLERS = ("umec_attest.appraisal", "umec_attest.bootlog", "umec_attest.ima", "umec_attest.clock", "umec_attest.resets")
TELLERS += ("umec_attest.floors", "umec_attest.starts")
TOLD_BY = {"Finding", "find", "_fell", "_finding"}
"""What is called with the id of a finding first."""
NAMES = {Tier.AFFIRMING: "information", Tier.WARNING: "warning", Tier.CONTRAINDICATED: "contradiction"}


def modules():
    for found in pkgutil.walk_packages(umec_attest.__path__, "umec_attest."):
        if found.name.startswith(TELLERS):
            yield importlib.import_module(found.name)


def told(module):
    """Return the ids that a module tells."""
    tree = ast.parse(Path(module.__file__).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {
        text
        for function in functions
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and called(call) in TOLD_BY and call.args
        for text in texts(call.args[0], function, module)
    }


def called(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)


def texts(value, function, module):
    """Return the texts that an expression can be: itself, a branch, a local name, a constant of the module."""
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=one, orelse=other):
            return texts(one, function, module) | texts(other, function, module)
        case ast.Name(id=name) if isinstance(getattr(module, name, None), str):
            return {getattr(module, name)}
        case ast.Name(id=name):
            return {
                text
                for node in ast.walk(function)
                if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets)
                for text in texts(node.value, function, module)
            }
    return set()


def refusals():
    """Return the codes that a refused log or list is told by."""
    return {
        kind.code
        for kind in map(errors.__dict__.get, errors.__all__)
        if issubclass(kind, errors.BootLogRefused | errors.ImaRefused | errors.StartLogRefused)
    }


def test_the_table_is_what_the_code_tells():
    ids = set().union(*(told(module) for module in modules())) | refusals()
    assert {"pcr-unexpected", "clock-fell", "separator-missing", "secure-boot-off", "ima-file-unknown"} <= ids
    assert sorted(ids - FINDINGS.keys()) == [], "told, and not in umec_attest.findings"
    assert sorted(FINDINGS.keys() - ids) == [], "in umec_attest.findings, and never told"


def test_what_nobody_knows_contradicts():
    assert tier_of("no-such-finding") is Tier.CONTRAINDICATED
    assert tier_of("rebooted") is Tier.AFFIRMING
    assert tier_of("secure-boot-off") is Tier.WARNING


def rows():
    return [f"| `{name}` | {NAMES[kind.tier]} | {kind.meaning} | {kind.advice} |" for name, kind in FINDINGS.items()]


def test_the_page_is_the_table():
    page = PAGE.read_text().splitlines()
    assert [line for line in page if line.startswith("| `")] == rows()


@pytest.mark.parametrize("name", sorted(FINDINGS))
def test_every_row_says_something(name):
    kind = FINDINGS[name]
    assert kind.tier is not Tier.NONE
    assert kind.meaning
    assert kind.advice
    assert "|" not in kind.meaning + kind.advice
