"""The whole chain, as `make demo` shows it: the README's claims about it, checked line by line."""

import json
import subprocess
import sys

import pytest

ATTACKS = {
    "replayed-evidence": "evidence-replayed",
    "old-quote-for-new-challenge": "quote-nonce-mismatch",
    "pcr-values-changed": "pcr-digest-mismatch",
    "pcr-tampered": "bootlog-replay-mismatch",
    "stolen-token-without-its-key": "token-binding",
    "stolen-token-with-another-key": "token-binding",
    "scope-not-granted": "token-scope",
    "services-of-another-tenant": "not-shown",
    "no-token": "token-missing",
    "unsigned": "image-unsigned",
    "foreign-identity": "image-identity",
    "staging-only": "promotion-stage",
    "layer-byte-changed": "blob-digest",
}


def demo(*options, timeout):
    line = [sys.executable, "-m", "umec_platform.cli", "demo", "--json", *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
def test_every_link_holds_every_attack_is_refused_and_every_effect_arrives():
    status, lines, errors = demo(timeout=300)
    assert status == 0, (lines[-1:], errors)
    assert {line["link"] for line in lines if "link" in line} == set(range(1, 13))
    assert all(line["ok"] and line["evidence"].startswith("sha256:") for line in lines if "link" in line)
    assert {line["attack"]: line["code"] for line in lines if "attack" in line} == ATTACKS
    effects = [line for line in lines if "effect" in line]
    assert len(effects) == 8
    assert all(line["ok"] for line in effects)
    measured = [line["ms"] for line in effects if line["ms"] is not None]
    assert len(measured) == 5
    assert lines[-1] == {"ok": True, "broken": []}


@pytest.mark.slow
@pytest.mark.parametrize("link", [1, 2])
def test_a_sabotaged_link_is_named(link):
    """The others run as `make sabotage`: each has to go through all the links before its own."""
    status, lines, _ = demo("--sabotage", str(link), timeout=120)
    assert status == 1
    assert [line["link"] for line in lines if line.get("ok") is False and "link" in line] == [link]
    assert lines[-1]["broken"][0].startswith(f"link {link} ")
