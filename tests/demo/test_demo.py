"""The whole chain, as `make demo` shows it: the README's claims about it, checked line by line."""

import json
import subprocess
import sys

import pytest

ATTACKS = {
    "replayed-evidence": "evidence-replayed",
    "old-quote-for-new-challenge": "quote-nonce-mismatch",
    "challenge-of-another-node": "nonce-unknown",
    "quote-of-another-tpm": "quote-signer-mismatch",
    "quote-signature-changed": "signature-invalid",
    "pcr-values-changed": "pcr-digest-mismatch",
    "pcr-relabelled": "pcr-selection-mismatch",
    "sha1-values-only": "pcr-values-invalid",
    "sha1-quote": "pcr-selection-mismatch",
    "pcr-tampered": "bootlog-replay-mismatch",
    "log-truncated": "bootlog-replay-mismatch",
    "log-of-another-boot": "bootlog-replay-mismatch",
    "older-reference-set": "reference-rollback",
    "empty-reference-set": "reference-empty",
    "expired-reference-set": "reference-expired",
    "reference-set-of-unknown-signer": "reference-signature",
    "stolen-ticket": "ticket-ek-mismatch",
    "ticket-used-twice": "ticket-used",
    "ticket-made-up": "ticket-unknown",
    "second-node-with-one-tpm": "ek-enrolled-elsewhere",
    "another-tpm-under-the-nodes-id": "node-other-ek",
    "ak-without-restriction": "ak-attributes",
    "ek-of-unknown-maker": "ek-certificate-path",
    "secret-guessed": "activation-secret-mismatch",
    "result-of-another-node": "attestation-pop-invalid",
    "proof-for-another-request": "attestation-pop-invalid",
    "certificate-from-before-the-fall": "client-certificate-fallen",
    "certificate-after-revocation": "standing-fallen",
    "evidence-after-revocation": "node-revoked",
    "stolen-token-without-its-key": "token-binding",
    "stolen-token-with-another-key": "token-binding",
    "replayed-proof": "dpop-replayed",
    "proof-of-another-request": "dpop-invalid",
    "forged-token": "token-invalid",
    "scope-not-granted": "token-scope",
    "scope-widened": "scope-invalid",
    "resource-not-ours": "target-invalid",
    "mp1-token-at-management": "token-audience",
    "management-token-at-mp1": "token-audience",
    "expired-assertion": "assertion-expired",
    "replayed-assertion": "assertion-replayed",
    "assertion-for-another-server": "assertion-audience",
    "assertion-of-another-client": "client-invalid",
    "services-of-another-tenant": "not-shown",
    "instance-of-another-tenant": "instance-foreign",
    "token-of-a-removed-client": "token-revoked",
    "no-token": "token-missing",
    "tag-moved": "tag-immutable",
    "push-to-another-tenant": "tenant-foreign",
    "unsigned": "image-unsigned",
    "signed-by-retired-authority": "image-authority-expired",
    "foreign-identity": "image-identity",
    "straight-to-production": "promotion-denied",
    "summary-of-another-image": "promotion-missing",
    "promotion-by-its-builder": "token-scope",
    "staging-only": "promotion-stage",
    "self-approved": "promotion-self-approved",
    "promotion-rolled-back": "promotion-rollback",
    "image-rolled-back": "image-rollback",
    "swapped-after-admission": "manifest-damaged",
    "deny-listed": "image-denied",
    "layer-byte-changed": "blob-digest",
    "address-of-another-tenant": "address-not-of-tenant",
    "every-address": "address-not-of-tenant",
    "target-of-another-tenant": "address-not-of-tenant",
    "name-of-another-tenant": "name-not-of-tenant",
    "name-to-another-tenant": "address-not-of-tenant",
    "image-of-another-tenant": "tenant-foreign",
    "image-by-tag": "appd-invalid",
    "permission-of-an-operator": "permission-not-grantable",
    "package-for-another-tenant": "tenant-foreign",
    "injection-into-names": "appd-invalid",
    "injection-into-matches": "rule-invalid",
    "injection-into-every-field": "no-trace",
    "own-rule-to-another-tenant": "rule-fixed",
    "own-rule-to-everything": "rule-fixed",
    "own-name-to-another-tenant": "rule-fixed",
    "rule-that-nobody-admitted": "rule-unknown",
    "rule-of-another-instance": "instance-foreign",
    "service-not-in-the-descriptor": "service-not-declared",
    "management-from-inside": "token-audience",
    "operators-scope-from-inside": "scope-invalid",
    "injection-through-mp1": "no-trace",
    "sockets-of-the-host": "out-of-reach",
    "network-beyond-the-tenant": "out-of-reach",
    "keys-of-others": "out-of-reach",
    "files-of-the-host": "not-permitted",
    "root-on-the-host": "not-permitted",
    "standing-forged": "standing-invalid",
    "standing-of-another-node": "standing-invalid",
    "standing-rolled-back": "standing-rollback",
    "standing-recorded": "standing-stale",
    "standing-held-back": "standing-stale",
    "expired-token": "token-expired",
    "token-after-the-fall": "standing-fallen",
    "audit-entry-removed": "audit-gap",
    "audit-entry-rewritten": "audit-rewritten",
    "audit-signed-by-another": "audit-checkpoint-invalid",
    "audit-older-state": "audit-gap",
    "audit-another-past": "audit-rewritten",
}

FALL_MS = 2000
"""From the verdict to each effect on the whole site, at most."""
OF_A_FALL = {
    "live token of an application on the node refused",
    "its service is SUSPENDED for those who ask",
    "its packets go nowhere",
    "its name is gone from the DNS",
}


def demo(*options, timeout):
    line = [sys.executable, "-m", "umec_platform.cli", "demo", "--json", *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_list_names_every_link_and_every_attack_and_runs_nothing():
    status, lines, errors = demo("--list", timeout=30)
    assert status == 0, errors
    assert [line["link"] for line in lines if "link" in line] == list(range(1, 13))
    assert {line["attack"]: line["expected"] for line in lines if "attack" in line} == ATTACKS
    assert len([line for line in lines if "attack" in line]) == len(ATTACKS)
    assert all(line["kind"] and line["has"] for line in lines if "attack" in line)


def test_an_attack_that_does_not_exist_is_refused_before_anything_runs():
    status, lines, _ = demo("--only", "no-such-attack", timeout=30)
    assert status == 1
    assert lines[-1]["code"] == "attack-unknown"


@pytest.mark.system
def test_one_attack_is_shown_alone():
    status, lines, errors = demo("--only", "pcr-relabelled", timeout=120)
    assert status == 0, (lines[-1:], errors)
    assert [line["attack"] for line in lines if "attack" in line] == ["pcr-relabelled"]
    assert {line["link"] for line in lines if "link" in line} == set(range(1, 7))


@pytest.mark.system
def test_every_link_holds_every_attack_is_refused_and_every_effect_arrives():
    status, lines, errors = demo(timeout=300)
    assert status == 0, (lines[-1:], errors)
    assert {line["link"] for line in lines if "link" in line} == set(range(1, 13))
    assert all(line["ok"] and line["evidence"].startswith("sha256:") for line in lines if "link" in line)
    assert {line["attack"]: line["code"] for line in lines if "attack" in line} == ATTACKS
    effects = [line for line in lines if "effect" in line]
    assert all(line["ok"] for line in effects)
    fell = {line["effect"]: line["ms"] for line in effects if line["effect"] in OF_A_FALL}
    assert fell.keys() == OF_A_FALL
    assert max(fell.values()) <= FALL_MS, fell
    end = lines[-1]
    assert (end["ok"], end["broken"]) == (True, [])
    assert sum(kind["of"] for kind in end["attacks"].values()) == len(ATTACKS)
    assert all(kind["refused"] == kind["of"] for kind in end["attacks"].values())


@pytest.mark.system
@pytest.mark.parametrize("link", [1, 2])
def test_a_sabotaged_link_is_named(link):
    """The others run as `make sabotage`: each has to go through all the links before its own."""
    status, lines, _ = demo("--sabotage", str(link), timeout=120)
    assert status == 1
    assert [line["link"] for line in lines if line.get("ok") is False and "link" in line] == [link]
    assert lines[-1]["broken"][0].startswith(f"link {link} ")
