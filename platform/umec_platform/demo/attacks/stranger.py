"""A stranger who bought two TPMs of a maker whom the site believes, and had one of them admitted as a node."""

import base64
import hashlib
import json
import secrets
from functools import cached_property
from typing import Any, Final

import httpx

from umec_attest.testing import adversary, firmware, runtime
from umec_attest.testing.image import Tamper
from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_platform.demo.hand import ATTEST, Hand, seconds
from umec_platform.demo.nodes import IMAGE, root_files
from umec_platform.demo.run import MANAGEMENT, Run, code_of
from umec_platform.demo.timeline import Broken

__all__ = ["NODE", "Stranger", "buy_tpm", "proven", "succeed"]

NODE: Final = "node-x"
"""The node that the stranger was admitted with."""


def buy_tpm(run: Run) -> SoftwareTpm:
    """Have a stranger buy a TPM, before the site starts and reads whom it believes; it keeps a SHA-1 bank, too."""
    tpm = run.clean_up.enter_context(SoftwareTpm(run.folder / "tpm-stranger"))
    adversary.switch_sha1_on(tpm)
    (run.folder / "ek-roots" / "stranger.pem").write_text(tpm.authority.root_pem)
    return tpm


class Stranger:
    """Speaks to the verifier as a node does: by wire bytes, from TPMs that really sign. Booted when first needed."""

    def __init__(self, run: Run, tpm: SoftwareTpm) -> None:
        self.run = run
        self.tpm = tpm
        self.image = run.folder / "node-image"
        self.log = self.other_log = b""
        self.ran = runtime.RuntimeList()
        self.ticket = ""

    @cached_property
    def http(self) -> httpx.Client:
        """A client without any credential."""
        return self.run.clean_up.enter_context(self.run.http())

    @cached_property
    def operator(self) -> Hand:
        """The operator, who admits TPMs."""
        return Hand.of(self.http, self.run.state / "operator.json")

    @cached_property
    def node(self) -> SoftwareNode:
        """The stranger's admitted node, booted from the right image and enrolled."""
        self.boot()
        node = self.run.clean_up.enter_context(SoftwareNode(self.tpm, name=NODE))
        self.ticket = self.ticket_for(node)
        self.enrol(node, self.ticket)
        return node

    @cached_property
    def spare(self) -> SoftwareNode:
        """The second TPM, of the same maker, under the same name and not enrolled; its kernel command line differs."""
        tpm = SoftwareTpm(self.run.folder / "tpm-spare", authority=self.tpm.authority)
        self.run.clean_up.enter_context(tpm)
        self.other_log = firmware.boot(tpm, self.image, tamper=Tamper.CMDLINE)
        return self.run.clean_up.enter_context(SoftwareNode(tpm, name=NODE))

    def ticket_for(self, node: SoftwareNode, asset: str = NODE) -> str:
        """Have the operator admit a TPM under a name."""
        body = {"asset": asset, "tenant": "city", "image": IMAGE, "ek_sha256": node.ek_sha256}
        return str(self.operator.have("POST", f"{ATTEST}/tickets", ATTEST, json=body).json()["ticket"])

    def begin(self, device: SoftwareNode, /, **changes: Any) -> httpx.Response:  # noqa: ANN401 - any member
        """Ask for enrolment, with members of the request changed."""
        body = device.enrolment() | changes
        return self.http.post(f"{ATTEST}/enrolments", json=body)

    def enrol(self, node: SoftwareNode, ticket: str) -> None:
        """Enrol honestly."""
        opened = succeed(self.begin(node, ticket=ticket), f"{NODE} could not enrol").json()
        path = f"{ATTEST}/enrolments/{opened['enrolment']}/activation"
        succeed(self.http.post(path, json=node.activation(opened)), f"{NODE} could not enrol")

    def challenge(self, node: str = NODE) -> dict[str, Any]:
        """Ask the verifier for a challenge, as anybody may."""
        return dict(succeed(self.http.post(f"{ATTEST}/challenges", json={"node": node}), "no challenge").json())

    def evidence(self, challenge: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return honest evidence of the admitted node."""
        node = self.node
        return dict(node.evidence(challenge or self.challenge(), boot_log=self.log, runtime=self.ran))

    def submit(self, evidence: dict[str, Any]) -> httpx.Response:
        """Hand evidence in."""
        return self.http.post(f"{ATTEST}/evidence", json=evidence)

    def believed(self) -> dict[str, Any]:
        """Have a round with honest evidence, after a new boot if the node fell; return evidence and result."""
        for _ in range(2):
            evidence = self.evidence()
            result = self.submit(evidence)
            if code_of(result) == "boot-log-required":  # after a boot the verifier asks for its lists from the start
                evidence = self.evidence()
                result = self.submit(evidence)
            if result.is_success and result.json()["standing"] == "trusted":
                return {"evidence": evidence, **result.json()}
            self.reboot()
        raise Broken(f"the honest evidence of {NODE} was refused: {result.text}", code_of(result))

    def reboot(self) -> None:
        """Switch the node off and on, with the right image."""
        self.tpm.power_cycle()
        self.boot()

    def boot(self) -> None:
        """Boot the right image, and run what is in its root file system."""
        self.log = firmware.boot(self.tpm, self.image)
        self.ran = runtime.start(self.tpm, root_files(self.run))


def succeed(answer: httpx.Response, otherwise: str) -> httpx.Response:
    """Return an answer that is no refusal; raises `Broken` for one that is."""
    if not answer.is_success:
        raise Broken(f"{otherwise}: {answer.text}", code_of(answer))
    return answer


def proven(http: httpx.Client, ear: str, node: SoftwareNode, *, csr: bytes | None = None) -> dict[str, str]:
    """Return the headers of attestation-based client authentication: a result, and a proof by a node's key.

    `csr` (DER) is the certificate request that the proof is for.
    """
    answer = succeed(http.post(f"{MANAGEMENT}/oauth2/challenge", json={}), "no challenge").json()
    claims = {"iss": node.name, "aud": MANAGEMENT, "iat": seconds(), "challenge": answer["attestation_challenge"]}
    claims |= {"jti": secrets.token_hex(16)}
    claims |= {} if csr is None else {"csr_sha256": hashlib.sha256(csr).hexdigest()}
    header = {"alg": "ES256", "typ": "oauth-client-attestation-pop+jwt"}
    text = ".".join(_part(json.dumps(part).encode()) for part in (header, claims))
    signature = node.sign(hashlib.sha256(text.encode()).digest())
    return {"OAuth-Client-Attestation": ear, "OAuth-Client-Attestation-PoP": f"{text}.{_part(signature)}"}


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
