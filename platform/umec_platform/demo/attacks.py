"""Attacks from outside, each with only what an attacker of that kind has: refused, each for its own reason."""

import subprocess
from dataclasses import dataclass
from typing import Any, Final

import httpx
import requests

from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_platform.demo import applications, images, nodes
from umec_platform.demo.client import OutsideClient
from umec_platform.demo.run import MANAGEMENT, MP1, Run, code_of
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES

__all__ = ["Probes", "buy_tpm", "on_evidence", "on_images", "on_tokens"]

STRANGER: Final = "node-x"
SERVICES: Final = "/mec_service_mgmt/v1/services"


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


@dataclass(slots=True)
class Probes:
    """Clients of people outside: one bound to a node, one of the same tenant and no node, one of another tenant."""

    bound: OutsideClient
    outside: OutsideClient
    foreign: OutsideClient

    @classmethod
    def register(cls, run: Run) -> "Probes":
        """Have the operator register them; each may only read services."""
        return cls(
            _client(run, "city-probe", "city", "--node", NODES[0].name),
            _client(run, "city-dashboard", "city"),
            _client(run, "transit-dashboard", "transit"),
        )


def on_tokens(run: Run, probes: Probes, instance: str) -> None:
    """Somebody has a token, and not what belongs to it."""
    token = probes.bound.token()
    honest = probes.bound.call("GET", SERVICES, token=token)
    if not honest.ok or not honest.json():
        raise Broken(f"the honest call was refused: {honest.text}")
    stolen = probes.bound.call_without_proof(SERVICES, token=token)
    run.timeline.attack("stolen-token-without-its-key", expected="token-binding", code=_said(stolen))
    wrong_key = probes.foreign.call_with_own_proof(SERVICES, token=token)
    run.timeline.attack("stolen-token-with-another-key", expected="token-binding", code=_said(wrong_key))
    support = f"/mec_app_support/v1/applications/{instance}"
    widened = probes.bound.call("GET", f"{support}/traffic_rules", token=token)
    run.timeline.attack("scope-not-granted", expected="token-scope", code=_said(widened))
    theirs = probes.foreign.call("GET", SERVICES, token=probes.foreign.token())
    found = "served" if any(instance in str(each) for each in theirs.json()) else "not-shown"
    run.timeline.attack("services-of-another-tenant", expected="not-shown", code=found)
    with run.http() as http:
        plain = http.get(f"{MP1}{SERVICES}")
    run.timeline.attack("no-token", expected="token-missing", code=code_of(plain))


def on_images(run: Run) -> None:
    """Images that must not run: each is onboarded, and its instance is refused."""
    for name, prepare, expected in (
        ("unsigned", _leave_unsigned, "image-unsigned"),
        ("foreign-identity", _sign_as_intern, "image-identity"),
        ("staging-only", _promote_to_staging, "promotion-stage"),
        ("layer-byte-changed", _damage, "blob-digest"),
    ):
        digest = images.small_image(run, name)
        prepare(run, name, images.image_of("city", name, digest))
        appd = applications.onboard(run, "city", digest, name=name)
        run.timeline.attack(name, expected=expected, code=_refusal(run, appd))


def _leave_unsigned(_run: Run, _name: str, _image: str) -> None:
    """Do nothing."""


def _sign_as_intern(run: Run, name: str, image: str) -> None:
    images.sign(run, image, name, "city-intern")


def _promote_to_staging(run: Run, name: str, image: str) -> None:
    images.sign(run, image, name, "city-builder")
    images.promote(run, image, "staging")


def _damage(run: Run, name: str, image: str) -> None:
    images.sign(run, image, name, "city-builder")
    for stage in ("staging", "production"):
        images.promote(run, image, stage)
    images.damage_layer(run, name)


def _refusal(run: Run, appd: str) -> str | None:
    try:
        applications.instantiate(run, appd, NODES[0])
    except Broken as broken:
        return broken.code
    return None


def _client(run: Run, name: str, tenant: str, *more: str) -> OutsideClient:
    file = run.folder / f"{name}.json"
    run.operator("client", "add", name, "--tenant", tenant, "--scope", "mec:services.read", *more, "--out", str(file))
    return OutsideClient(file, run.ca)


def _said(answer: requests.Response) -> str | None:
    return None if answer.ok else str(answer.json().get("code"))
