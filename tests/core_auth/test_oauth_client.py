"""The machine client: what it sends is what servers verify, and what servers refuse keeps its code."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from umec_core.client import BoundedGet, Credential, OAuthClient, RemoteRefused, load_credential, save_credential
from umec_core.dpop import ReplayCache, verify_proof
from umec_core.errors import Kind, UmecError
from umec_core.jose import KeySet, verify_jwt
from umec_core.keys import write_private

ISSUER = "https://authority.test:8443"


def credential(world) -> Credential:
    return Credential.of(issuer=ISSUER, client_id="umec-platform", key=world.client_key, ca="")


class Server:
    """Issues tokens and answers calls, or refuses as told."""

    def __init__(self, world):
        self.world, self.replay, self.tokens, self.refusals, self.calls = world, ReplayCache(), 0, [], 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        url, now = str(request.url), self.world.now
        token = request.headers.get("authorization", "").removeprefix("DPoP ") or None
        verify_proof(
            request.headers["dpop"], method=request.method, url=url, now=now, replay=self.replay, access_token=token
        )
        if request.url.path == "/oauth2/token":
            self.tokens += 1
            form = dict(httpx.QueryParams(request.content.decode()))
            keys = KeySet([self.world.client_key.public_key()])
            claims = verify_jwt(form["client_assertion"], keys, typ="client-authentication+jwt")
            assert (claims["aud"], claims["sub"], claims["iss"]) == (ISSUER, "umec-platform", "umec-platform")
            body = {"access_token": f"t{self.tokens}", "token_type": "DPoP", "expires_in": 300}
            return httpx.Response(200, json=body)
        self.calls += 1
        return self.refusals.pop() if self.refusals else httpx.Response(200, json={"token": token})


def client(world, server) -> OAuthClient:
    http = httpx.AsyncClient(transport=httpx.MockTransport(server))
    return OAuthClient(credential(world), http, clock=lambda: world.now)


def ask(made: OAuthClient) -> httpx.Response:
    return asyncio.run(made.request("GET", f"{ISSUER}/x?y=z", resource=ISSUER, scopes=["a"]))


def test_a_token_is_kept_until_shortly_before_its_end(world):
    server = Server(world)
    made = client(world, server)
    assert [ask(made).json()["token"] for _ in range(3)] == ["t1"] * 3
    world.later(seconds=269)
    assert ask(made).json()["token"] == "t1"
    world.later(seconds=2)
    assert ask(made).json()["token"] == "t2"


def test_a_refused_token_is_renewed_once(world):
    server = Server(world)
    problem = {"code": "token-invalid", "detail": "the key is gone", "advice": "ask anew"}
    server.refusals = [httpx.Response(401, json=problem)]
    assert ask(client(world, server)).json()["token"] == "t2"
    server.refusals = [httpx.Response(401, json=problem)] * 2
    with pytest.raises(RemoteRefused) as caught:
        ask(client(world, server))
    assert (caught.value.code, caught.value.detail, caught.value.advice) == tuple(problem.values())
    assert caught.value.kind is Kind.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.Response(403, json={"code": "token-scope", "detail": "no"}), "token-scope"),
        (httpx.Response(400, json={"error": "invalid_scope"}), "invalid_scope"),
        (httpx.Response(502, text="<html>"), "http-502"),
        (httpx.Response(302, headers={"location": "https://elsewhere.test"}), "http-302"),
    ],
)
def test_refusals_keep_their_code(world, answer, code):
    server = Server(world)
    server.refusals = [answer]
    with pytest.raises(RemoteRefused) as caught:
        ask(client(world, server))
    assert caught.value.code == code


def test_a_server_that_is_away(world):
    def away(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    with pytest.raises(UmecError) as caught:
        ask(client(world, away))
    assert caught.value.code == "remote-unavailable"


@pytest.mark.parametrize(
    "body", [{}, {"access_token": 1}, {"access_token": "t", "token_type": "Bearer", "expires_in": 9}]
)
def test_a_token_that_is_not_bound_is_not_taken(world, body):
    with pytest.raises(UmecError) as caught:
        ask(client(world, lambda _request: httpx.Response(200, json=body)))
    assert caught.value.code == "remote-unavailable"


def test_reading_keys_is_bounded():
    async def get(answer: httpx.Response, limit: int) -> bytes:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _request: answer)) as http:
            return await BoundedGet(http)("https://authority.test/jwks", limit=limit)

    for answer, limit in ((httpx.Response(200, content=b"12345"), 4), (httpx.Response(404), 9)):
        with pytest.raises(UmecError) as caught:
            asyncio.run(get(answer, limit))
        assert caught.value.code == "remote-unavailable"
    assert asyncio.run(get(httpx.Response(200, content=b"1234"), 4)) == b"1234"


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server CA")])
    key, start = generate_private_key(SECP256R1()), datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=365))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def test_credential_files(world, tmp_path):
    path, whole = tmp_path / "operator.json", credential(world).model_copy(update={"ca": certificate()})
    save_credential(path, whole)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_credential(path) == whole
    path.chmod(0o640)
    with pytest.raises(UmecError) as caught:
        load_credential(path)
    assert caught.value.code == "key-file-exposed"
    good = json.loads(whole.model_dump_json())
    for spoilt in (
        b"",
        b"{}",
        json.dumps({**good, "more": 1}).encode(),
        json.dumps({**good, "private_jwk": {}}).encode(),
        json.dumps({**good, "ca": ""}).encode(),
    ):
        write_private(path, spoilt)
        with pytest.raises(UmecError) as caught:
            load_credential(path)
        assert caught.value.code == "credential-invalid"
