"""What to do about a refusal: every code in the table exists in the code base, and the common ones are there."""

import ast
import re
from pathlib import Path

import pytest
import typer

from umec_core.errors import Refused
from umec_platform.cli.advice import ADVICE, advice_for
from umec_platform.cli.output import fail

ROOT = Path(__file__).parents[2]
COMMON = frozenset(
    re.findall(
        r"[a-z-]+",
        """
    file-unreadable file-malformed system-refused settings-invalid key-file-exposed credential-invalid
    remote-unavailable listener-busy sandbox-unavailable token-scope token-revoked scope-invalid client-invalid
    client-unknown client-exists ticket-unknown ticket-used ticket-expired ticket-outdated ticket-ek-mismatch
    ek-enrolled-elsewhere ek-certificate-path node-enrolled node-other-ek agent-state-invalid tpm-unavailable
    node-unknown node-not-trusted node-revoked node-assignment-missing readmit-needs-boot standing-conflict
    reference-missing reference-expired
    reference-signature reference-rollback image-unsigned image-identity image-denied promotion-missing promotion-stage
    promotion-denied admission-denied manifest-unknown tag-immutable tenant-foreign appd-invalid package-unknown
    instance-unknown instance-state host-unknown host-not-trusted netd-unreachable tenant-unknown address-not-of-tenant
    name-not-of-tenant already-exists audit-gap audit-rewritten policy-invalid
""",
    )
)
"""What somebody meets who admits nodes, pushes images and starts applications."""


def codes() -> set[str]:
    """Return every code of a refusal that some module of the packages gives."""
    found = set()
    for file in ROOT.glob("*/umec_*/**/*.py"):
        if file == ROOT / "platform" / "umec_platform" / "cli" / "advice.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Assign(targets=[ast.Name(id="code" | "oauth")], value=ast.Constant(value=str(code))):
                    found.add(code)
                case ast.AnnAssign(target=ast.Name(id="code" | "oauth"), value=ast.Constant(value=str(code))):
                    found.add(code)
                case ast.Call(func=ast.Name(id="Down"), args=[ast.Constant(value=str(code)), *_]):
                    found.add(code)
    return found


def test_the_codes_are_found():
    assert {"ticket-used", "invalid_scope", "instance-ended", "internal-error"} <= codes()
    assert "no-such-code" not in codes()


def test_every_code_with_advice_exists():
    assert ADVICE.keys() - codes() == set()


def test_the_common_codes_have_advice():
    assert len(COMMON) >= 40
    assert COMMON - ADVICE.keys() == set()
    assert all(advice and not advice.endswith(".") for advice in ADVICE.values())


def test_what_the_refusal_advises_comes_first():
    assert advice_for("ticket-used", "ask at the desk") == "ask at the desk"
    assert advice_for("ticket-used", None) == ADVICE["ticket-used"]
    assert advice_for("no-such-code", None) is None


@pytest.mark.parametrize("as_json", [True, False])
def test_a_refusal_is_printed_with_it(capsys, as_json):
    class Used(Refused):
        code = "ticket-used"

    with pytest.raises(typer.Exit):
        fail(Used("the ticket was used"), as_json=as_json)
    said = capsys.readouterr()
    assert ADVICE["ticket-used"] in (said.out if as_json else said.err)
