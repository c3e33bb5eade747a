"""How the repository lies: traps of its layout, what every module offers, what imports what, and what nobody writes."""

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
AREAS = ("attest", "core", "identity", "images", "platform", "policies")
PACKAGES = tuple(f"umec_{area}" for area in AREAS)
MODULES = sorted(
    found.name
    for package in PACKAGES
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    if not found.name.endswith("__main__")
)
REGISTRIES = ("py" + "pi.org", "python" + "hosted", "npm" + "js.", "docker" + ".io", "gh" + "cr.io", "crates" + ".io")
WORKPLACES = ("/work" + "/", "/root" + "/")
INDEX_OPTIONS = ("--index-url", "--extra-index-url", "--find-links", "--trusted-host")


def source(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("area", AREAS)
def test_no_area_is_a_package(area):
    assert not (ROOT / area / "__init__.py").exists()


def test_no_folder_of_tests_is_a_package(tracked):
    assert not [file for file in tracked if file.is_relative_to(ROOT / "tests") and file.name == "__init__.py"]


def test_the_standard_library_is_found():
    said = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.__file__)"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert str(ROOT) not in said.stdout


# --- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_module_offers_what_it_defines(name):
    if ".migrations." in name:
        return
    tree = source(name)
    if not [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]:
        return  # a docstring alone offers nothing
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    assert [offered for offered in module.__all__ if not hasattr(module, offered)] == []


@pytest.mark.parametrize("name", MODULES)
def test_nobody_imports_what_another_module_keeps_to_itself(name):
    found = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(source(name))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("umec_")
        for alias in node.names
        if alias.name.startswith("_") or any(part.startswith("_") for part in (node.module or "").split("."))
    ]
    assert found == []


def test_the_import_contracts_hold():
    lint = Path(sys.executable).parent / "lint-imports"
    said = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, check=False, text=True)
    assert said.returncode == 0, said.stdout
    assert "0 broken" in said.stdout


def test_the_contracts_say_who_is_pure():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    forbidden = {
        source: set(contract["forbidden_modules"])
        for contract in contracts
        if contract["type"] == "forbidden"
        for source in contract["source_modules"]
    }
    for judge in ("umec_attest.quote", "umec_attest.appraisal", "umec_attest.tpm", "umec_policies"):
        assert {"fastapi", "sqlalchemy", "httpx", "tpm2_pytss"} <= forbidden[judge]
    assert {"fastapi", "sqlalchemy", "cedarpy"} <= forbidden["umec_attest.agent"]
    assert ["umec_attest.predict", "umec_attest.testing"] in [contract.get("modules") for contract in contracts]


# --- what is written -------------------------------------------------------------------------------------------------


def test_nobody_writes_down_a_workplace_or_a_registry(tracked):
    found = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in tracked
        for text in [file.read_bytes().decode("utf-8", "replace")]
        for word in (*WORKPLACES, *REGISTRIES)
        if word in text
    ]
    assert found == []


@pytest.mark.parametrize("lock", ["requirements.lock", "scripts/uv.lock", "benchmarks/keylime/requirements.lock"])
def test_a_lock_names_no_host_and_every_hash(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert not [option for option in INDEX_OPTIONS if re.search(rf"^\s*{option}", text, re.MULTILINE)]
    entries = [entry for entry in re.split(r"\n(?=[a-zA-Z0-9])", text) if not entry.startswith("#")]
    assert entries
    assert [entry.splitlines()[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert [
        entry.splitlines()[0] for entry in entries if not re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==", entry)
    ] == []


def test_the_lock_satisfies_the_project():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", lock, re.MULTILINE)
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    requirements = [Requirement(one) for one in wanted]
    names = {re.sub(r"[-_.]+", "-", one.name).lower(): one for one in requirements}
    assert len(names) >= len(project["dependencies"])
    unmet = [name for name, one in names.items() if name not in locked or locked[name] not in one.specifier]
    assert unmet == []
