"""The platform as a node sees it: one method for each call of the HTTP contract.

Errors: RemoteRefused (with the code that the service sent), RemoteUnavailable, AnswerInvalid.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from umec_attest.agent.tls import NodeCredential
from umec_attest.agent.transport import Answer, Transport, json_body
from umec_attest.agent.wire import (
    Activated,
    Certified,
    Challenge,
    Enrolment,
    NodeToken,
    PopChallenge,
    Result,
    Rotated,
    RotationPermit,
    ShownCheckpoint,
    read_answer,
)

__all__ = ["PlatformClient"]


class PlatformClient:
    """A connection to the management listener, with the node's certificate once there is one; a context manager."""

    def __init__(self, url: str, ca: str, credential: NodeCredential | None = None) -> None:
        self._url = url
        self._http = Transport(ca, credential)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def enrol(self, body: Mapping[str, Any]) -> Enrolment:
        """Ask for enrolment."""
        return read_answer(Enrolment, await self._post("/attest/v1/enrolments", body))

    async def activate(self, enrolment: str, body: Mapping[str, Any]) -> Activated:
        """Show that the secret could be opened, and certify the node key."""
        return read_answer(Activated, await self._post(f"/attest/v1/enrolments/{enrolment}/activation", body))

    async def challenge(self, node: str) -> Challenge:
        """Ask for a nonce."""
        return read_answer(Challenge, await self._post("/attest/v1/challenges", {"node": node}))

    async def evidence(self, body: Mapping[str, Any]) -> Result:
        """Hand evidence in."""
        return read_answer(Result, await self._post("/attest/v1/evidence", body))

    async def checkpoint(self, size: int) -> ShownCheckpoint:
        """Ask for the newest checkpoint of the verifier's log, with the proof from one of `size` entries."""
        return read_answer(ShownCheckpoint, await self.send("GET", f"/attest/v1/checkpoint?from={size}"))

    async def rotate(self, body: Mapping[str, Any]) -> RotationPermit:
        """Ask for other keys."""
        return read_answer(RotationPermit, await self._post("/attest/v1/rotations", body))

    async def prove_rotation(self, body: Mapping[str, Any]) -> Rotated:
        """Hand in what the TPM says about the other keys."""
        return read_answer(Rotated, await self._post("/attest/v1/rotations/proof", body))

    async def pop_challenge(self) -> str:
        """Ask for a challenge that the next proof of possession names."""
        return read_answer(PopChallenge, await self._post("/oauth2/challenge", {})).attestation_challenge

    async def certificate(self, csr: str, proof: Mapping[str, str]) -> Certified:
        """Ask for a certificate; `proof` are the headers of attestation and possession."""
        return read_answer(Certified, await self._post("/identity/v1/certificates", {"csr": csr}, proof))

    async def token(self, form: Mapping[str, str], proof: Mapping[str, str]) -> NodeToken:
        """Ask for a token that is bound to the certificate of this connection."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", **proof}
        content = urlencode(form).encode()
        return read_answer(NodeToken, await self.send("POST", "/oauth2/token", content=content, headers=headers))

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to a server of the site, which shows the certificate."""
        return await self._http.connect(host, port)

    async def _post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
        content, kind = json_body(body)
        return await self.send("POST", path, content=content, headers={**kind, **(headers or {})})

    async def send(
        self,
        method: str,
        place: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Answer:
        """Send a request to a path of the platform, or to a URL; `check` refuses everything but 2xx."""
        url = f"{self._url}{place}" if place.startswith("/") else place
        return await self._http.send(method, url, content=content, headers=headers, check=check)
