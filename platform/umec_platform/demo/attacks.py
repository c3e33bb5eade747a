"""Attacks from outside, each with only what an attacker of that kind has: refused, each for its own reason."""

import subprocess
from typing import Any

import httpx

from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_platform.demo import nodes
from umec_platform.demo.run import MANAGEMENT, Run, code_of
from umec_platform.demo.timeline import Broken

__all__ = ["buy_tpm", "on_evidence"]

STRANGER = "node-x"


def buy_tpm(run: Run) -> SoftwareTpm:
    """Have a stranger buy a TPM of a maker whom the site believes."""
    tpm = run.clean_up.enter_context(SoftwareTpm(run.folder / "tpm-stranger"))
    run.tcti[STRANGER] = tpm.tcti
    (run.folder / "ek-roots" / "stranger.pem").write_text(tpm.authority.root_pem)
    return tpm


def on_evidence(run: Run, tpm: SoftwareTpm) -> None:
    """Somebody owns a node that was admitted, with its TPM, and answers the verifier as they please."""
    nodes.boot_image(run, STRANGER)
    with run.http() as http, SoftwareNode(tpm, name=STRANGER) as node:
        _enrol(http, node, nodes.ticket_for(run, STRANGER, "city"))
        log = nodes.boot_log(run, STRANGER).read_bytes()

        honest = node.evidence(_challenge(http), boot_log=log)
        first = http.post(f"{MANAGEMENT}/attest/v1/evidence", json=honest)
        if not first.is_success or first.json()["verdict"] != "affirming":
            raise Broken(f"the honest evidence of {STRANGER} was refused: {first.text}", code_of(first))
        again = http.post(f"{MANAGEMENT}/attest/v1/evidence", json=honest)
        run.timeline.attack("replayed-evidence", expected="evidence-replayed", code=code_of(again))

        renewed = {**honest, "challenge": _challenge(http)["challenge"]}
        old_quote = http.post(f"{MANAGEMENT}/attest/v1/evidence", json=renewed)
        run.timeline.attack("old-quote-for-new-challenge", expected="quote-nonce-mismatch", code=code_of(old_quote))

        changed: dict[str, Any] = node.evidence(_challenge(http), boot_log=log)
        changed["pcrs"]["sha256"]["11"] = "00" * 32
        relabelled = http.post(f"{MANAGEMENT}/attest/v1/evidence", json=changed)
        run.timeline.attack("pcr-values-changed", expected="pcr-digest-mismatch", code=code_of(relabelled))

        digest = "5a" * 32
        command = ["tpm2_pcrextend", f"11:sha256={digest}", "--tcti", tpm.tcti]
        subprocess.run(command, check=True, capture_output=True)
        tampered = http.post(f"{MANAGEMENT}/attest/v1/evidence", json=node.evidence(_challenge(http), boot_log=log))
        found = {finding["id"] for finding in tampered.json().get("findings", [])}
        expected = "bootlog-replay-mismatch"
        code = expected if expected in found else ", ".join(sorted(found))
        run.timeline.attack("pcr-tampered", expected=expected, code=code or None)


def _challenge(http: httpx.Client) -> dict[str, Any]:
    answer = http.post(f"{MANAGEMENT}/attest/v1/challenges", json={"node": STRANGER})
    return dict(answer.raise_for_status().json())


def _enrol(http: httpx.Client, node: SoftwareNode, ticket: str) -> None:
    opened = http.post(f"{MANAGEMENT}/attest/v1/enrolments", json=node.enrolment(ticket=ticket))
    if not opened.is_success:
        raise Broken(f"{STRANGER} could not enrol: {opened.text}", code_of(opened))
    answer = opened.json()
    path = f"{MANAGEMENT}/attest/v1/enrolments/{answer['enrolment']}/activation"
    http.post(path, json=node.activation(answer)).raise_for_status()
