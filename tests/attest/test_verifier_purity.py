"""The verifying half computes: it needs no TPM library, no web framework, no database; and it says what it offers."""

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import umec_attest

IMPURE = ("umec_attest.agent", "umec_attest.service", "umec_attest.testing")
PURE = sorted(
    module.name
    for module in pkgutil.walk_packages(umec_attest.__path__, "umec_attest.")
    if not module.name.startswith(IMPURE)
)
FORBIDDEN = (
    "tpm2_pytss",
    "fastapi",
    "starlette",
    "sqlalchemy",
    "aiosqlite",
    "httpx",
    "uvicorn",
    "umec_platform",
    *IMPURE,
)


def test_nothing_impure_is_imported():
    program = "import sys, json, importlib\n[importlib.import_module(m) for m in json.loads(sys.argv[1])]\n"
    program += "print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program, json.dumps(PURE)], capture_output=True, check=True, text=True)
    loaded = json.loads(said.stdout)
    assert [name for name in loaded if name.startswith(FORBIDDEN)] == []


@pytest.mark.parametrize("name", PURE)
def test_every_module_says_what_it_offers(name):
    module = importlib.import_module(name)
    assert all(hasattr(module, offered) for offered in module.__all__)


def test_every_error_has_a_code_of_its_own():
    errors = importlib.import_module("umec_attest.errors")
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert len(codes) == len(set(codes))
