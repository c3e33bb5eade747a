"""An OAuth client that others wrote, over real HTTPS: it gets a DPoP-bound token and calls a protected API with it."""

import asyncio
import socket
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fastapi import APIRouter, Depends
from requests_oauth2client import DPoPKey, DPoPToken, OAuth2Client, PrivateKeyJwt
from requests_oauth2client.exceptions import OAuth2Error

from umec_core.client import Credential, OAuthClient, http_client
from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_core.http import create_app, require
from umec_core.jose import KeySet, private_jwk, public_jwk
from umec_core.principal import Principal
from umec_core.server import Listener, serve
from umec_core.standing import StandingView
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_identity.clients.schemas import ClientIn
from umec_identity.service import IdentityService
from umec_identity.settings import IdentitySettings


def write_certificate(folder: Path) -> tuple[Path, Path]:
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)  # noqa: TID251 - real servers, real time
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    certificate, secret = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(built.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, secret


class Site:
    """An authorization server and an API on one HTTPS listener, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = generate_private_key(SECP256R1())
        self.certificate, self.secret = write_certificate(folder)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.socket.getsockname()[1]}"
        self.ready, self.failure = threading.Event(), None
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Site":
        self.thread.start()
        assert self.ready.wait(20)
        if self.failure is not None:
            raise self.failure
        return self

    def __exit__(self, *_unused: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(20)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            service = await IdentityService.open(
                IdentitySettings(
                    issuer=self.url, mp1=self.url, registry=f"{self.url}/r", state=self.folder / "identity"
                ),
                verifier_keys=StaticKeys(KeySet([self.key.public_key()])),
                standings=StandingView(),
                seeds=[
                    ClientIn(
                        client_id="cam-1",
                        kind="application",
                        tenant="transit",
                        jwks={"keys": [public_jwk(self.key)]},
                        scopes=["mec:app"],
                    )
                ],
            )
        except BaseException as error:
            self.failure = error
            self.ready.set()
            raise
        verifier = TokenVerifier(
            issuer=self.url, audience=f"{self.url}/", keys=service.ring, standings=None, clock=system_clock
        )
        app = create_app("site", [*service.routers, api(verifier)])
        listener = Listener(
            app, certificate=self.certificate, key=self.secret, client_ca=service.ca_path, host="127.0.0.1"
        )
        self.ready.set()
        await serve([listener], self.stop, sockets=[self.socket])
        await service.close()


def api(verifier: TokenVerifier) -> APIRouter:
    router = APIRouter()

    @router.get("/mec_app_support/v1/hello")
    async def hello(
        who: Annotated[Principal, Depends(require(verifier, "mec:app"))], verbose: bool = False
    ) -> dict[str, str]:
        return {"client": who.client_id, "tenant": str(who.tenant), "binding": who.binding, "verbose": str(verbose)}

    return router


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def session(site):
    with requests.Session() as made:
        made.trust_env = False  # a bundle that the environment names would win over the next line
        made.verify = str(site.certificate)
        yield made


def client(site, session) -> OAuth2Client:
    metadata = session.get(f"{site.url}/.well-known/oauth-authorization-server").json()
    return OAuth2Client(
        metadata["token_endpoint"],
        auth=PrivateKeyJwt("cam-1", private_jwk(site.key), aud=metadata["issuer"]),
        issuer=metadata["issuer"],
        jwks_uri=metadata["jwks_uri"],
        dpop_bound_access_tokens=True,
        dpop_key_generator=lambda alg: DPoPKey.generate(alg=alg),
        session=session,
    )


def test_a_client_of_others_is_served(site, session):
    token = client(site, session).client_credentials(scope="mec:app", resource=f"{site.url}/")
    assert isinstance(token, DPoPToken)
    answer = session.get(f"{site.url}/mec_app_support/v1/hello?verbose=1", auth=token)
    assert answer.json() == {"client": "cam-1", "tenant": "transit", "binding": "dpop", "verbose": "True"}


def test_the_same_without_its_key_is_refused(site, session):
    with pytest.raises(OAuth2Error, match="send a proof"):
        client(site, session).client_credentials(scope="mec:app", resource=f"{site.url}/", dpop=False)
    token = client(site, session).client_credentials(scope="mec:app", resource=f"{site.url}/")
    for scheme in ("Bearer", "DPoP"):
        headers = {"Authorization": f"{scheme} {token.access_token}"}
        answer = session.get(f"{site.url}/mec_app_support/v1/hello", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "token-binding")
        assert "DPoP" in answer.headers["www-authenticate"]


def test_our_own_client_is_served_too(site):
    async def scenario() -> None:
        ca = site.certificate.read_text()
        credential = Credential.of(issuer=site.url, client_id="cam-1", key=site.key, ca=ca)
        async with http_client(ca) as http:
            made = OAuthClient(credential, http)
            url = f"{site.url}/mec_app_support/v1/hello"
            for _ in range(2):
                answer = await made.request("GET", url, resource=f"{site.url}/", scopes=["mec:app"])
                assert answer.json()["binding"] == "dpop"
            with pytest.raises(UmecError) as caught:
                await made.request("GET", url, resource=f"{site.url}/", scopes=["mec:dns"])
            assert caught.value.code == "scope-invalid"

    asyncio.run(scenario())
