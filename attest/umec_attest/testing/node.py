"""A node with a software TPM, as a verifier meets it: wire bytes for every step, made by a TPM that really signs."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from umec_attest.agent.tpm import Attested, EndorsementKey, PcrQuote, Tpm, WrappedKey
from umec_attest.testing.runtime import RuntimeList
from umec_attest.testing.swtpm import SoftwareTpm

__all__ = ["DEFAULT_PCRS", "SoftwareNode"]

DEFAULT_PCRS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)
"""What a verifier asks for when nobody configured it otherwise."""


class SoftwareNode:
    """Keys and statements of a node whose TPM is `tpm`; a context manager that does not own the TPM.

    `ek`, `ak` and `node_key` are as the agent makes them; `ek_chain` has the issuing certificates (DER).
    """

    def __init__(self, tpm: SoftwareTpm, *, name: str = "node-1") -> None:
        self.name = name
        self.device = tpm
        self.tpm = Tpm(tpm.tcti)
        self.ek: EndorsementKey = self.tpm.endorsement_key()
        self.ak: WrappedKey = self.tpm.create_attestation_key()
        self.node_key: WrappedKey = self.tpm.create_node_key()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the TPM."""
        self.tpm.close()

    @property
    def ek_public(self) -> bytes:
        """The EK as TPMT_PUBLIC."""
        return self.ek.public

    @property
    def ek_sha256(self) -> str:
        """The hex SHA-256 of the EK's SubjectPublicKeyInfo."""
        return self.ek.sha256

    @property
    def ek_certificate(self) -> bytes | None:
        """The EK certificate in DER."""
        return self.ek.certificate

    @property
    def ek_chain(self) -> tuple[bytes, ...]:
        """The certificates between the EK's and the authority's root, in DER."""
        return self.device.authority.chain

    @property
    def ak_public(self) -> bytes:
        """The AK as TPMT_PUBLIC."""
        return self.ak.public

    @property
    def node_key_public(self) -> bytes:
        """The node key as TPMT_PUBLIC."""
        return self.node_key.public

    @property
    def node_key_jwk(self) -> dict[str, str]:
        """The node key as JWK (RFC 7517)."""
        key = load_der_public_key(self.node_key.spki)
        if not isinstance(key, EllipticCurvePublicKey):
            raise TypeError("the node key is not an EC key")
        numbers = key.public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}

    def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """Return the secret that the verifier sealed to this EK and AK."""
        return self.tpm.activate_credential(self.ak, credential_blob, encrypted_secret)

    def certify(self, secret: bytes) -> Attested:
        """Certify the node key by the AK, with SHA-256 of the activation secret as qualifying data."""
        return self.tpm.certify(self.node_key, self.ak, hashlib.sha256(secret).digest())

    def quote(self, nonce: bytes, pcrs: Sequence[int] = DEFAULT_PCRS) -> PcrQuote:
        """Quote PCRs of the SHA-256 bank with the AK."""
        return self.tpm.quote(self.ak, nonce, pcrs)

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest with the node key: r||s."""
        return self.tpm.sign(self.node_key, digest)

    def enrolment(self, *, ticket: str | None = None) -> dict[str, object]:
        """Return the body of `POST /attest/v1/enrolments`."""
        body: dict[str, object] = {
            "node": self.name,
            "ek_public": _b64(self.ek_public),
            "ek_chain": [_b64(certificate) for certificate in self.ek_chain],
            "ak_public": _b64(self.ak_public),
            "node_key_public": _b64(self.node_key_public),
        }
        if self.ek_certificate is not None:
            body["ek_certificate"] = _b64(self.ek_certificate)
        if ticket is not None:
            body["ticket"] = ticket
        return body

    def activation(self, answer: Mapping[str, str]) -> dict[str, str]:
        """Return the body of `POST …/activation` for the answer to an enrolment."""
        secret = self.activate(
            base64.b64decode(answer["credential_blob"]), base64.b64decode(answer["encrypted_secret"])
        )
        certified = self.certify(secret)
        return {
            "secret": _b64(secret),
            "certify_attest": _b64(certified.attest),
            "certify_signature": _b64(certified.signature),
        }

    def evidence(
        self,
        challenge: Mapping[str, object],
        *,
        boot_log: bytes | None,
        runtime: RuntimeList | None = None,
        starts: bytes | None = None,
    ) -> dict[str, object]:
        """Return the body of `POST /attest/v1/evidence` for an answer to `POST /attest/v1/challenges`.

        `starts` is the node's whole log of starts, of which the challenge says what it wants.
        """
        pcrs = challenge["pcrs"]
        if not isinstance(pcrs, dict):
            raise TypeError("pcrs of a challenge is an object")
        made = self.quote(base64.b64decode(str(challenge["nonce"])), pcrs["sha256"])
        body: dict[str, object] = {
            "node": self.name,
            "challenge": challenge["challenge"],
            "quote": _b64(made.quote.attest),
            "signature": _b64(made.quote.signature),
            "pcrs": {"sha256": {str(index): value.hex() for index, value in made.pcrs.items()}},
        }
        if boot_log is not None and challenge["boot_log"] == "full":
            body["boot_log"] = _b64(boot_log)
        elif boot_log is not None:
            body["boot_log_sha256"] = hashlib.sha256(boot_log).hexdigest()
        wanted = challenge.get("ima")
        if isinstance(wanted, dict) and runtime is not None:
            body |= {"ima": _b64(b"".join(runtime.entries[wanted["from"] :])), "ima_from": wanted["from"]}
        wanted = challenge.get("starts")
        if isinstance(wanted, dict) and starts is not None:
            lines = starts.splitlines(keepends=True)
            body |= {"starts": _b64(b"".join(lines[wanted["from"] :])), "starts_from": wanted["from"]}
        return body


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _coordinate(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
