"""Credentials of nodes: results, certificates and keys that belong to another node, or to another time."""

import ssl
from pathlib import Path
from typing import Final

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from umec_attest.testing import adversary
from umec_attest.testing.node import SoftwareNode
from umec_platform.demo.attacks.stranger import NODE, Stranger, proven, succeed
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.command import wait_for
from umec_platform.demo.hand import ATTEST, IDENTITY, TOKENS
from umec_platform.demo.run import code_of

__all__ = ["ATTACKS"]

EFFECT_SECONDS: Final = 2.0
"""A change of standing has reached every API by then."""


def foreign_result(stranger: Stranger) -> str | None:
    """Show a node's attestation result, with a proof by another TPM's node key."""
    ear = str(stranger.believed()["ear"])
    succeed(_certificate(stranger, ear, stranger.node)[0], "the node itself got no certificate")
    return code_of(_certificate(stranger, ear, stranger.spare)[0])


def proof_for_another_request(stranger: Stranger) -> str | None:
    """Put another certificate request behind a node's proof of possession."""
    ear = str(stranger.believed()["ear"])
    _, csr = _request()
    headers = proven(stranger.http, ear, stranger.node, csr=csr.public_bytes(Encoding.DER))
    _, other = _request()
    refused = code_of(_send(stranger, headers, other))
    headers = proven(stranger.http, ear, stranger.node, csr=csr.public_bytes(Encoding.DER))
    succeed(_send(stranger, headers, csr), "the node itself got no certificate")
    return refused


def before_the_fall(stranger: Stranger) -> str | None:
    """Keep a certificate over a fall and a recovery of its node: it is of another generation."""
    ear = str(stranger.believed()["ear"])
    with _with_certificate(stranger, ear) as shown:
        succeed(_token(shown, stranger, ear), "the node got no token with its certificate")
        adversary.extend_pcr(stranger.tpm, 11)
        stranger.submit(stranger.evidence())
        recovered = str(stranger.believed()["ear"])
        return code_of(_token(shown, stranger, recovered))


def after_revocation(stranger: Stranger) -> str | None:
    """Use the certificate and the token of a node that was revoked."""
    ear = str(stranger.believed()["ear"])
    with _with_certificate(stranger, ear) as shown:
        token = succeed(_token(shown, stranger, ear), "the node got no token with its certificate").json()
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        succeed(shown.get(f"{ATTEST}/standings/own", headers=bearer), "the token of the node did not work")
        stranger.operator.have("POST", f"{ATTEST}/nodes/{NODE}/revoke", ATTEST, json={"reason": "shown in the demo"})

        def refused() -> str | None:
            return code_of(shown.get(f"{ATTEST}/standings/own", headers=bearer))

        code, _ = wait_for("a refusal after the revocation", refused, seconds=EFFECT_SECONDS)
        return code


def evidence_after_revocation(stranger: Stranger) -> str | None:
    """Attest as a node that was revoked, with evidence as good as ever; a ticket makes it a node again."""
    stranger.enrol(stranger.node, stranger.ticket_for(stranger.node))
    good = stranger.believed()["evidence"]
    stranger.operator.have("POST", f"{ATTEST}/nodes/{NODE}/revoke", ATTEST, json={"reason": "shown in the demo"})
    return code_of(stranger.submit(good))


def _request() -> tuple[ec.EllipticCurvePrivateKey, x509.CertificateSigningRequest]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NODE)])
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:umec:node:{NODE}")])
    draft = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(uri, critical=False)
    return key, draft.sign(key, SHA256())


def _certificate(stranger: Stranger, ear: str, node: SoftwareNode) -> tuple[httpx.Response, ec.EllipticCurvePrivateKey]:
    key, csr = _request()
    headers = proven(stranger.http, ear, node, csr=csr.public_bytes(Encoding.DER))
    return _send(stranger, headers, csr), key


def _send(stranger: Stranger, headers: dict[str, str], csr: x509.CertificateSigningRequest) -> httpx.Response:
    body = {"csr": csr.public_bytes(Encoding.PEM).decode()}
    return stranger.http.post(f"{IDENTITY}/certificates", json=body, headers=headers)


def _with_certificate(stranger: Stranger, ear: str) -> httpx.Client:
    """Return a client that shows a new certificate of the node."""
    answer, key = _certificate(stranger, ear, stranger.node)
    made = succeed(answer, "the node got no certificate").json()
    file: Path = stranger.run.folder / "stranger-tls.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with file.open("a") as chain:
        chain.write(made["certificate"] + made["chain"])
    context = ssl.create_default_context(cafile=stranger.run.ca)
    context.load_cert_chain(file)
    return httpx.Client(verify=context, timeout=10.0, trust_env=False)


def _token(shown: httpx.Client, stranger: Stranger, ear: str) -> httpx.Response:
    form = {"grant_type": "client_credentials", "client_id": NODE, "resource": ATTEST, "scope": "node:host"}
    return shown.post(TOKENS, data=form, headers=proven(shown, ear, stranger.node))


HAS: Final = "an admitted node, with its TPM"

ATTACKS: Final[tuple[Attack[Stranger], ...]] = (
    Attack("result-of-another-node", "attestation-pop-invalid", "another node's result (EAR)", foreign_result),
    Attack("proof-for-another-request", "attestation-pop-invalid", "a node's messages", proof_for_another_request),
    Attack("certificate-from-before-the-fall", "client-certificate-fallen", HAS, before_the_fall),
    Attack("certificate-after-revocation", "standing-fallen", HAS, after_revocation),
    Attack("evidence-after-revocation", "node-revoked", HAS, evidence_after_revocation),
)
