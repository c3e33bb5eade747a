"""An OAuth client made by hand: what an attacker writes where a library would not let them do wrong.

It has a credential file, JOSE and HTTP, and nothing else. The operator's errands of the demo run through it too, where
a command line for each would only take time.
"""

import base64
import hashlib
import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from umec_platform.demo.run import MANAGEMENT, code_of
from umec_platform.demo.timeline import Broken

__all__ = ["ATTEST", "IDENTITY", "PLATFORM", "Hand", "register", "seconds", "signed"]

ATTEST: Final = f"{MANAGEMENT}/attest/v1"
IDENTITY: Final = f"{MANAGEMENT}/identity/v1"
PLATFORM: Final = f"{MANAGEMENT}/platform/v1"
TOKENS: Final = f"{MANAGEMENT}/oauth2/token"
LIFE: Final = 60
KEPT_SECONDS: Final = 20.0
"""A token of the demo's site lives for a minute."""


class Hand:
    """A client whose every message can be bent."""

    def __init__(self, http: httpx.Client, client_id: str, key: ECKey) -> None:
        self.http = http
        self.client_id = client_id
        self.key = key
        self._kept: dict[str, tuple[float, str]] = {}

    @classmethod
    def of(cls, http: httpx.Client, file: Path) -> "Hand":
        """Take a credential file in hand."""
        document = json.loads(file.read_text())
        return cls(http, document["client_id"], ECKey.import_key(document["private_jwk"]))

    def assertion(self, **changes: Any) -> str:  # noqa: ANN401 - any claim
        """Return a client assertion (RFC 7523), with claims changed."""
        now = seconds()
        claims = {"iss": self.client_id, "sub": self.client_id, "aud": MANAGEMENT, "jti": secrets.token_hex(16)}
        return signed(claims | {"iat": now, "exp": now + LIFE} | changes, self.key, typ="JWT")

    def proof(self, method: str, url: str, token: str | None = None) -> str:
        """Return a proof of possession (RFC 9449) for one request."""
        claims: dict[str, Any] = {"htm": method, "htu": url.partition("?")[0]}
        claims |= {"jti": secrets.token_hex(16), "iat": seconds()}
        if token is not None:
            digest = hashlib.sha256(token.encode()).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return signed(claims, self.key, typ="dpop+jwt", jwk=self.key.as_dict(private=False))

    def ask(self, resource: str, scope: str | None = None, *, assertion: str | None = None) -> httpx.Response:
        """Ask for a token, and return whatever is answered."""
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion or self.assertion(),
            "resource": resource,
        }
        form |= {} if scope is None else {"scope": scope}
        return self.http.post(TOKENS, data=form, headers={"DPoP": self.proof("POST", TOKENS)})

    def token(self, resource: str, scope: str | None = None) -> str:
        """Return a token; a refusal raises `Broken`."""
        answer = self.ask(resource, scope)
        if not answer.is_success:
            raise Broken(f"{self.client_id} got no token for {resource}: {answer.text}", code_of(answer))
        return str(answer.json()["access_token"])

    def kept(self, resource: str) -> str:
        """Return a token, a new one where the last has been used for a while."""
        at, token = self._kept.get(resource, (0.0, ""))
        if time.monotonic() - at > KEPT_SECONDS or not token:
            at, token = time.monotonic(), self.token(resource)
            self._kept[resource] = (at, token)
        return token

    def call(self, method: str, url: str, token: str, *, proof: str | None = None, **request: Any) -> httpx.Response:  # noqa: ANN401 - as httpx takes it
        """Send a request with a token and a proof for it."""
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof or self.proof(method, url, token)}
        headers |= request.pop("headers", {})
        return self.http.request(method, url, headers=headers, **request)

    def have(self, method: str, url: str, resource: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - as httpx takes it
        """Send a request that has to succeed."""
        answer = self.call(method, url, self.token(resource), **request)
        if not answer.is_success:
            raise Broken(f"{self.client_id}: {method} {url}: {answer.text}", code_of(answer))
        return answer


def register(operator: Hand, client_id: str, *, kind: str, scopes: list[str], **members: str) -> Hand:
    """Have the operator register a client with a key of its own."""
    key = ECKey.generate_key("P-256", {"alg": "ES256", "use": "sig"}, auto_kid=True)
    keys = {"keys": [key.as_dict(private=False)]}
    body = {"client_id": client_id, "kind": kind, "scopes": scopes, "jwks": keys, **members}
    operator.have("POST", f"{IDENTITY}/clients", IDENTITY, json=body)
    return Hand(operator.http, client_id, key)


def signed(claims: dict[str, Any], key: ECKey, *, typ: str, **header: Any) -> str:  # noqa: ANN401 - any JSON
    """Return a JWT under any key."""
    return jwt.encode({"alg": "ES256", "typ": typ, **header}, claims, key)


def seconds() -> int:
    """Return the time of day, as a JWT says it."""
    return int(datetime.now(UTC).timestamp())  # noqa: TID251 - a demo lives in the real time
