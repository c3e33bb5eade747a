"""The promotion API of the whole images service: real docker-registry, real gateway, real tokens, real signatures."""

import asyncio
import uuid
from datetime import timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_images.admission import Admitter
from umec_images.gateway import ImagesService, ImagesSettings
from umec_images.oci.client import RegistryClient
from umec_images.oci.manifest import EMPTY, EMPTY_CONTENT, MANIFEST, Descriptor, encode
from umec_images.promotion import trusted_builders
from umec_images.verify import BundleVerifier
from umec_policies import load_default

ISSUER = "https://mgmt.test:8443"
REPOSITORY = "harbour/crane"
BUILDERS = trusted_builders(ISSUER, {"harbour": ["builder"]})


class Site:
    """The images service, and clients with tokens for it."""

    def __init__(self, url, key):
        self.url, self.key = url, key

    def holder(self, scope, *, client="release-manager", **claims):
        """Return a function that authorises requests with a DPoP-bound token of a client."""
        own, now = ec.generate_private_key(ec.SECP256R1()), system_clock()
        token = {
            "iss": ISSUER,
            "sub": client,
            "client_id": client,
            "aud": f"{self.url}/",
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=300)).timestamp()),
            "jti": uuid.uuid4().hex,
            "scope": scope,
            "cnf": {"jkt": thumbprint(own)},
        }
        signed = sign_jwt({**token, **claims}, self.key, typ="at+jwt")

        async def authorize(method, url):
            proof = make_proof(own, method, url, now=system_clock(), access_token=signed)
            return {"Authorization": f"DPoP {signed}", "DPoP": proof}

        return authorize

    def post(self, body, authorize=None):
        url = f"{self.url}/images/v1/promotions"
        headers = {} if authorize is None else asyncio.run(authorize("POST", url))
        return httpx.post(url, json=body, headers=headers)

    def run(self, work):
        """Run `await work(client)` with a registry client that may push and pull everywhere."""

        async def with_client():
            async with httpx.AsyncClient(timeout=30) as http:
                client = RegistryClient(self.url, http, self.holder("images:push images:pull", client="umec-platform"))
                return await work(client)

        return asyncio.run(with_client())

    def image(self):
        """Push a new image and return its digest."""

        async def push(client):
            layer = uuid.uuid4().bytes
            config, blob = await client.push_blob(REPOSITORY, EMPTY_CONTENT), await client.push_blob(REPOSITORY, layer)
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": Descriptor(EMPTY, config, len(EMPTY_CONTENT)).to_json(),
                "layers": [Descriptor("application/vnd.oci.image.layer.v1.tar", blob, len(layer)).to_json()],
            }
            return await client.push_manifest(REPOSITORY, None, encode(manifest), MANIFEST)

        return self.run(push)


@pytest.fixture(scope="module")
def site(served, tmp_path_factory):
    key, state = ec.generate_private_key(ec.SECP256R1()), tmp_path_factory.mktemp("images")
    keys = StaticKeys(KeySet([key.public_key()]))

    async def make(url):
        verifier = TokenVerifier(issuer=ISSUER, audience=f"{url}/", keys=keys, standings=None, clock=system_clock)
        settings = ImagesSettings(
            state=state, url=url, issuer=ISSUER, max_blob=8 * 1024 * 1024, builders={"harbour": ["builder"]}
        )
        opened = await ImagesService.open(settings, verifier=verifier, identity_keys=keys, clock=system_clock)
        return opened.app, opened.close

    with served(make) as url:
        yield Site(url, key)


@pytest.fixture(scope="module")
def authority(site, signing):
    return signing(site.url, site.key)


@pytest.fixture
def signed(site, authority):
    digest = site.image()
    site.run(lambda client: client.attach(REPOSITORY, digest, authority.statement(digest)))
    return digest


def wanted(digest, stage="staging"):
    return {"repository": REPOSITORY, "digest": digest, "stage": stage}


def test_who_may_promote(site, signed):
    anonymous = site.post(wanted(signed))
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "token-missing")
    assert anonymous.headers["www-authenticate"].startswith("DPoP ")
    scope = site.post(wanted(signed), site.holder("images:push images:pull"))
    assert (scope.status_code, scope.json()["code"]) == (403, "token-scope")
    tenant = site.post(wanted(signed), site.holder("images:promote", tenant="market"))
    assert (tenant.status_code, tenant.json()["code"]) == (403, "promotion-denied")
    builder = site.post(wanted(signed), site.holder("images:promote", client="builder", tenant="harbour"))
    assert (builder.status_code, builder.json()["code"]) == (403, "promotion-denied")
    right = site.post(wanted(signed), site.holder("images:promote", tenant="harbour"))
    assert right.status_code == 201
    assert right.json()["vsa_digest"].startswith("sha256:")


@pytest.mark.parametrize(
    "change", [{"stage": "elsewhere"}, {"digest": "sha256:00"}, {"surprise": 1}, {"repository": "no-tenant"}]
)
def test_malformed_wishes_are_refused(site, signed, change):
    answer = site.post({**wanted(signed), **change}, site.holder("images:promote"))
    assert answer.status_code == 400
    assert answer.json()["code"] in {"invalid-input", "reference-invalid"}
    assert site.post(wanted(signed), site.holder("images:promote")).status_code == 201


def test_what_is_promoted_to_production_is_admitted(site, authority, signed):
    key = ECKey.import_key(httpx.get(f"{site.url}/images/v1/promotion-key").json()).public_key

    def admit():
        async def work(client):
            admitter = Admitter(
                registry=client,
                verifier=BundleVerifier(authority.root),
                builders=BUILDERS,
                promotion_keys=[key],
                policies=lambda: load_default("admission"),
                clock=system_clock,
            )
            return await admitter.admit(tenant="harbour", repository=REPOSITORY, digest=signed)

        return site.run(work)

    manager = site.holder("images:promote")
    early = site.post(wanted(signed, "production"), manager)
    assert (early.status_code, early.json()["code"]) == (403, "promotion-denied")
    with pytest.raises(Exception, match="never promoted"):
        admit()
    assert site.post(wanted(signed, "staging"), manager).status_code == 201
    with pytest.raises(Exception, match="wanted for production"):
        admit()
    assert site.post(wanted(signed, "production"), manager).status_code == 201
    again = site.post(wanted(signed, "production"), manager)
    assert (again.status_code, again.json()["code"]) == (409, "promotion-exists")
    assert admit().policies == ("admit-production",)


def test_an_unsigned_image_is_not_promoted(site):
    answer = site.post(wanted(site.image()), site.holder("images:promote"))
    assert answer.json()["code"] == "image-unsigned"
    absent = site.post(wanted("sha256:" + "0" * 64), site.holder("images:promote"))
    assert absent.status_code == 404
