"""The tool that removes checks: what it takes for one, and that each switch removes exactly that one."""

import tomllib
from pathlib import Path

import pytest
from mutants import instrument

HERE = Path(__file__).parent

PERSON = """
def check(age, name, alias=None):
    if age < 18 or not (name and not name.isupper()):
        raise ValueError("who?")
    if alias is not None:
        _check_alias(alias)
    return name

def _check_alias(alias):
    if alias == "root":
        raise ValueError("nobody is root")

def may(name, groups) -> bool:
    if name == "root":
        return True
    return "staff" in groups and name in groups

def pair(one, two):
    if (one, two) != (1, 2):
        raise ValueError("not the pair")

def greet(name):
    if name == "eve":
        _refuse(name)
    return name

def _refuse(name):
    raise ValueError("nobody is eve")

def between(number):
    if not 0 < number <= 9:
        raise ValueError("beyond")

def findings(number):
    if number > 9:
        yield Finding("beyond")

def parse(text):
    try:
        text.encode("ascii")
    except UnicodeError as error:
        raise ValueError("not ASCII") from error

def choose(kind):
    if kind in {"a", "b"}:
        return kind
    raise ValueError("neither")
"""

OFF = [
    ("check", "age < 18", (17, "a")),
    ("check", "name", (18, "")),
    ("check", "not name.isupper()", (18, "A")),
    ("check", "_check_alias(alias)", (18, "a", "root")),
    ("_check_alias", "if alias == 'root': raise ValueError('nobody is root')", ("root",)),
    ("pair", "one != 1", (0, 2)),
    ("pair", "two != 2", (1, 0)),
    ("greet", "if name == 'eve': _refuse(name)", ("eve",)),
    ("between", "0 < number", (0,)),
    ("between", "number <= 9", (10,)),
    ("parse", "text.encode('ascii')", ("é",)),
    ("choose", "raise ValueError('neither')", ("c",)),
    ("choose", "kind in {'a', 'b'}", ("c",)),
]


def run(off, function, arguments):
    """Call a function of PERSON with one mutant off; returns what it returns and who asked."""
    tree, mutants = instrument(PERSON, "person")
    names = {f"{one.place}: {one.removed}": one.id for one in mutants}
    asked = []

    def keep(name):
        asked.append(name)
        return name != names.get(off)

    def force(value, to_true, to_false):
        return (value if keep(to_false) else False) if value else (value if keep(to_true) else True)

    module = {"__keep__": keep, "__reach__": keep, "__force__": force, "Finding": str}
    exec(compile(tree, "person", "exec"), module)  # noqa: S102 - the tool's own product
    assert off is None or off in names
    return module[function](*arguments), [name for name, key in names.items() if key in asked]


@pytest.mark.parametrize(("function", "removed", "arguments"), OFF, ids=[off[1] for off in OFF])
def test_a_switch_removes_its_check_alone(function, removed, arguments):
    with pytest.raises(ValueError, match=r"who|root|eve|pair|beyond|ASCII|neither"):
        run(None, function, arguments)
    _, asked = run(f"person:{function}: {removed}", function, arguments)
    assert f"person:{function}: {removed}" in asked
    for other, value, refused in OFF:
        if (other, value) != (function, removed) and other == function and refused != arguments:
            with pytest.raises(ValueError, match=r"who|root|eve|pair|beyond|ASCII|neither"):
                run(f"person:{function}: {removed}", other, refused)


def test_what_does_not_refuse_asks_nobody():
    assert run(None, "check", (18, "a")) == ("a", [])
    assert run(None, "pair", (1, 2)) == (None, [])
    assert run(None, "choose", ("a",)) == ("a", [])


def test_a_predicate_is_held_true_and_false():
    returned = "person:may: return 'staff' in groups and name in groups is always "
    assert run(None, "may", ("ann", {"staff"}))[0] is False
    assert run(f"{returned}True", "may", ("ann", {"staff"}))[0] is True
    assert run("person:may: name in groups", "may", ("ann", {"staff"}))[0] is True
    assert run(f"{returned}False", "may", ("ann", {"staff", "ann"}))[0] is False
    assert run("person:may: return True is always False", "may", ("root", {}))[0] is False


def test_a_finding_is_a_refusal():
    found, _ = run(None, "findings", (10,))
    assert list(found) == ["beyond"]
    found, _ = run("person:findings: if number > 9: yield Finding('beyond')", "findings", (10,))
    assert list(found) == []


def test_the_areas_name_what_is_there():
    root = HERE.parents[1]
    for area in tomllib.loads((HERE / "modules.toml").read_text(encoding="utf-8")).values():
        for name in area["modules"]:
            place = root / name.partition(".")[0].removeprefix("umec_") / name.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), name
        assert [tests for tests in area["tests"] if not (root / tests).exists()] == []
