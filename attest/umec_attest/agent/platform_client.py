"""The platform as a node sees it: one method for each call of the HTTP contract.

Errors: RemoteRefused (with the code that the service sent), RemoteUnavailable, AnswerInvalid.
"""

import json
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from umec_attest.agent.tls import NodeCredential, client
from umec_attest.agent.wire import (
    Activated,
    Certified,
    Challenge,
    Enrolment,
    NodeToken,
    PopChallenge,
    Result,
    read_answer,
)
from umec_core.client import RemoteUnavailable, check_answer

__all__ = ["PlatformClient"]

TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0)
"""Seconds: half a round. A verifier that needs longer is as good as none."""


class PlatformClient:
    """A connection to the management listener, with the node's certificate once there is one; a context manager."""

    def __init__(self, url: str, ca: str, credential: NodeCredential | None = None) -> None:
        self._url = url
        self._http = client(ca, credential, timeout=TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

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

    async def pop_challenge(self) -> str:
        """Ask for a challenge that the next proof of possession names."""
        return read_answer(PopChallenge, await self._post("/oauth2/challenge", {})).attestation_challenge

    async def certificate(self, csr: str, proof: Mapping[str, str]) -> Certified:
        """Ask for a certificate; `proof` are the headers of attestation and possession."""
        return read_answer(Certified, await self._post("/identity/v1/certificates", {"csr": csr}, proof))

    async def token(self, form: Mapping[str, str], proof: Mapping[str, str]) -> NodeToken:
        """Ask for a token that is bound to the certificate of this connection."""
        return read_answer(NodeToken, await self.send("POST", f"{self._url}/oauth2/token", data=form, headers=proof))

    async def _post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return await self.send(
            "POST",
            f"{self._url}{path}",
            content=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
        )

    async def send(self, method: str, url: str, *, check: bool = True, **arguments: Any) -> httpx.Response:  # noqa: ANN401
        """Send a request as httpx takes it; `check` refuses everything but 2xx."""
        try:
            response = await self._http.request(method, url, **arguments)
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise RemoteUnavailable(
                f"{method} {url}: {error or type(error).__name__}",
                advice="is the platform up, and its CA the pinned one?",
            ) from error
        return check_answer(response) if check else response
