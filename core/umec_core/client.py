"""A machine client of the authorization server and the APIs: private_key_jwt (RFC 7523), DPoP (RFC 9449), httpx.

CredentialInvalid   credential-invalid   a credential file is not one
RemoteUnavailable   remote-unavailable   a server cannot be reached, or does not answer in time
RemoteRefused       the code of the server, or http-STATUS where it gave none
"""

import secrets
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpcore
import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from pydantic import BaseModel, ConfigDict, ValidationError

from umec_core.clock import Clock, system_clock
from umec_core.connections import Connections
from umec_core.dpop import make_proof
from umec_core.errors import Kind, UmecError
from umec_core.jose import private_jwk, private_key, sign_jwt
from umec_core.keys import read_private, write_private
from umec_core.remote import RemoteRefused, RemoteUnavailable, refusal

__all__ = [
    "AccessToken",
    "BoundedGet",
    "Credential",
    "CredentialInvalid",
    "OAuthClient",
    "RemoteRefused",
    "RemoteUnavailable",
    "check_answer",
    "client_assertion",
    "http_client",
    "load_credential",
    "save_credential",
]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

ASSERTION_LIFE: Final = timedelta(seconds=60)
"""An assertion is used at once."""

EARLY: Final = timedelta(seconds=30)
"""A token is renewed this long before it ends, so that none ends on its way."""

TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
"""Seconds; a long poll waits for five."""


class CredentialInvalid(UmecError):
    """A credential file is not one."""

    code = "credential-invalid"
    kind = Kind.INVALID


class Credential(BaseModel):
    """A client of the authorization server, as its file holds it: mode 0600, JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str
    client_id: str
    private_jwk: dict[str, str]
    ca: str
    """The certificates (PEM) that the servers' certificates must lead to."""

    def key(self) -> EllipticCurvePrivateKey:
        """Return the key; raises `JwkInvalid`."""
        return private_key(self.private_jwk)

    @classmethod
    def of(cls, *, issuer: str, client_id: str, key: EllipticCurvePrivateKey, ca: str) -> "Credential":
        """Return the credential of a key."""
        return cls(issuer=issuer, client_id=client_id, private_jwk=private_jwk(key), ca=ca)


def load_credential(path: Path) -> Credential:
    """Return the credential of a file; raises `CredentialInvalid` or `KeyFileExposed`."""
    try:
        credential = Credential.model_validate_json(read_private(path))
        credential.key()
        x509.load_pem_x509_certificates(credential.ca.encode())
    except (ValidationError, UmecError, OSError, ValueError) as error:
        if isinstance(error, UmecError) and error.code == "key-file-exposed":
            raise
        raise CredentialInvalid(
            f"{path} is not a client credential", advice="`umec up` writes operator.json"
        ) from error
    return credential


def save_credential(path: Path, credential: Credential) -> None:
    """Write a credential file that only its owner may read."""
    write_private(path, credential.model_dump_json(indent=1).encode() + b"\n")


def http_client(ca: str, *, certificate: tuple[Path, Path] | None = None) -> httpx.AsyncClient:
    """Return an HTTP client that trusts exactly the certificates in `ca` (PEM) and follows no redirect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return httpx.AsyncClient(transport=_Transport(context), timeout=TIMEOUT, follow_redirects=False, trust_env=False)


class _Transport(httpx.AsyncHTTPTransport):
    """That of httpx, with its limits, on connections that end with whoever opened them: httpx has no setting for it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=Connections(),
        )


def client_assertion(
    *, client_id: str, key: EllipticCurvePrivateKey, issuer: str, now: datetime, life: timedelta = ASSERTION_LIFE
) -> str:
    """Return a private_key_jwt: one audience, the issuer itself (rfc7523bis)."""
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": issuer,
        "iat": int(now.timestamp()),
        "exp": int((now + life).timestamp()),
        "jti": secrets.token_urlsafe(18),
    }
    return sign_jwt(claims, key, typ="client-authentication+jwt")


def check_answer(response: httpx.Response) -> httpx.Response:
    """Return an answer of 2xx; raises `RemoteRefused` with what the server says (problem+json or RFC 6749)."""
    if response.is_success:
        return response
    raise refusal(response.status_code, response.content, response.headers.get("retry-after"))


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token in the hands of its client."""

    text: str = field(repr=False)
    expires: datetime


class BoundedGet:
    """GET without credentials, for key sets; raises `RemoteUnavailable` unless it is 200 and within the limit."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def __call__(self, url: str, *, limit: int) -> bytes:
        """Return the body."""
        body = bytearray()
        try:
            async with self._http.stream("GET", url) as response:
                if response.status_code != 200:
                    raise RemoteUnavailable(f"{url} answered {response.status_code}")
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > limit:
                        raise RemoteUnavailable(f"{url} answered more than {limit} bytes")
        except httpx.HTTPError as error:
            raise RemoteUnavailable(f"{url}: {error or type(error).__name__}") from error
        return bytes(body)


class OAuthClient:
    """Calls APIs with DPoP-bound access tokens, asked for when needed and kept until shortly before they end."""

    def __init__(self, credential: Credential, http: httpx.AsyncClient, *, clock: Clock = system_clock) -> None:
        self.credential: Final = credential
        self.http: Final = http
        self._key = credential.key()
        self._clock = clock
        self._tokens: dict[tuple[str, str], AccessToken] = {}

    async def token(self, resource: str, scopes: Sequence[str], *, fresh: bool = False) -> AccessToken:
        """Return an access token for one API; raises `RemoteRefused` or `RemoteUnavailable`."""
        scope = " ".join(sorted(scopes))
        known = self._tokens.get((resource, scope))
        if known is not None and not fresh and known.expires - EARLY > self._clock():
            return known
        token = await self._ask(resource, scope)
        self._tokens[resource, scope] = token
        return token

    async def _ask(self, resource: str, scope: str) -> AccessToken:
        now, url = self._clock(), f"{self.credential.issuer}/oauth2/token"
        assertion = client_assertion(
            client_id=self.credential.client_id, key=self._key, issuer=self.credential.issuer, now=now
        )
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
            "resource": resource,
            "scope": scope,
        }
        headers = {"DPoP": make_proof(self._key, "POST", url, now=now)}
        response = check_answer(await self.send("POST", url, data=form, headers=headers))
        return _read_token(response, now)

    async def request(
        self,
        method: str,
        url: str,
        *,
        resource: str,
        scopes: Sequence[str],
        json: object = None,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> httpx.Response:
        """Call an API and return its answer; raises `RemoteRefused` for anything but 2xx unless `check` is False.

        A token that the API no longer takes (401 token-*: keys were rotated, clocks differ) is renewed once.
        """
        for fresh in (False, True):
            token = await self.token(resource, scopes, fresh=fresh)
            proof = make_proof(self._key, method, url, now=self._clock(), access_token=token.text)
            given = {**(headers or {}), "Authorization": f"DPoP {token.text}", "DPoP": proof}
            response = await self.send(method, url, json=json, content=content, params=params, headers=given)
            if response.status_code != 401 or fresh:
                break
        return check_answer(response) if check else response

    async def send(self, method: str, url: str, **arguments: Any) -> httpx.Response:  # noqa: ANN401 - httpx checks them
        """Send a request as it is; raises `RemoteUnavailable` where httpx raises."""
        try:
            return await self.http.request(method, url, **arguments)
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise RemoteUnavailable(
                f"{method} {url}: {error or type(error).__name__}",
                advice="is that service up, and its CA the right one?",
            ) from error

    async def standings(self, *, after: int, wait: float, node: str | None = None) -> str:
        """Return the signed standing statement of the verifier: what a `StandingFollower` follows."""
        resource = f"{self.credential.issuer}/attest/v1"
        query = {"after": str(after), "wait": f"{wait:g}"} | ({} if node is None else {"node": node})
        response = await self.request(
            "GET", f"{resource}/standings", resource=resource, scopes=["standings:read"], params=query
        )
        statement = response.json().get("statement")
        if not isinstance(statement, str):
            raise RemoteUnavailable("the verifier answered without a statement")
        return statement


def _read_token(response: httpx.Response, now: datetime) -> AccessToken:
    try:
        body = response.json()
        text, kind, life = body["access_token"], body["token_type"], body["expires_in"]
        if not isinstance(text, str) or str(kind).lower() != "dpop" or not isinstance(life, int):
            raise RemoteUnavailable("the authorization server did not answer with a DPoP-bound token")
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteUnavailable("the authorization server did not answer with a token") from error
    return AccessToken(text=text, expires=now + timedelta(seconds=life))
