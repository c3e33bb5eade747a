"""An OAuth 2.0 client of somebody outside: off-the-shelf libraries, and the credential file that they were given."""

import json
from pathlib import Path
from typing import Any

import requests
from jwskate import Jwk
from requests_oauth2client import DPoPToken, OAuth2Client, PrivateKeyJwt

from umec_platform.demo.run import MP1

__all__ = ["OutsideClient"]

TIMEOUT = 10


class OutsideClient:
    """Gets DPoP-bound tokens (RFC 9449) with private_key_jwt (RFC 7523), and calls Mp1 with them."""

    def __init__(self, credential: Path, ca: str) -> None:
        document = json.loads(credential.read_text())
        key = Jwk(document["private_jwk"]).with_kid_thumbprint()
        self._session = requests.Session()
        self._session.verify, self._session.trust_env = ca, False
        self._client = OAuth2Client(
            token_endpoint=f"{document['issuer']}/oauth2/token",
            auth=PrivateKeyJwt(document["client_id"], key, alg="ES256", aud=document["issuer"]),
            dpop_bound_access_tokens=True,
            session=self._session,
        )

    def token(self) -> DPoPToken:
        """Ask for a token for Mp1; a refusal raises the library's own error."""
        token = self._client.client_credentials(resource=f"{MP1}/")
        if not isinstance(token, DPoPToken):
            raise TypeError("the token is not bound")
        return token

    def call(
        self, method: str, path: str, *, token: DPoPToken, body: dict[str, Any] | None = None
    ) -> requests.Response:
        """Call Mp1 with a token and a proof by its key."""
        return self._session.request(method, f"{MP1}{path}", json=body, auth=token, timeout=TIMEOUT)

    def call_without_proof(self, path: str, *, token: DPoPToken) -> requests.Response:
        """Call Mp1 with the token's text alone, as a thief has it."""
        headers = {"Authorization": f"DPoP {token.access_token}"}
        return self._session.get(f"{MP1}{path}", headers=headers, timeout=TIMEOUT)

    def call_with_own_proof(self, path: str, *, token: DPoPToken) -> requests.Response:
        """Call Mp1 with a token of somebody else, and a proof by our key."""
        own = self.token()
        stolen = DPoPToken(access_token=token.access_token, _dpop_key=own.dpop_key)
        request = self._session.prepare_request(requests.Request("GET", f"{MP1}{path}", auth=stolen))
        request.hooks["response"].clear()  # the library takes every refusal of a proof for the wish for a nonce
        return self._session.send(request, verify=self._session.verify, timeout=TIMEOUT)
