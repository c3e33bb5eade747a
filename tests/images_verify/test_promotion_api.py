"""The promotion API of the whole images service: real docker-registry, real gateway, real tokens, real signatures."""

import asyncio
import contextlib
import json
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
from umec_images.errors import ImageDenied
from umec_images.gateway import ImagesService, ImagesSettings
from umec_images.oci.client import RegistryClient
from umec_images.oci.errors import RegistryRefused
from umec_images.oci.manifest import EMPTY, EMPTY_CONTENT, MANIFEST, Descriptor, encode
from umec_images.oci.version import parse_version
from umec_images.promotion import DenyList, StoredHistory, trusted_builders
from umec_images.verify import BundleVerifier
from umec_policies import PolicySet, load_default

ISSUER = "https://mgmt.test:8443"
REPOSITORY = "harbour/crane"
BUILDERS = trusted_builders(ISSUER, {"harbour": ["builder"]})


class Site:
    """The images service, and clients with tokens for it."""

    def __init__(self, url, key, service):
        self.url, self.key, self.service = url, key, service

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

    def deny(self, digest):
        url = f"{self.url}/images/v1/denials"
        headers = asyncio.run(self.holder("images:admin")("POST", url))
        return httpx.post(url, json={"digest": digest, "reason": "recalled"}, headers=headers)

    def allow(self, digest):
        url = f"{self.url}/images/v1/denials/{digest}"
        return httpx.delete(url, headers=asyncio.run(self.holder("images:admin")("DELETE", url)))

    def run(self, work):
        """Run `await work(client)` with a registry client that may push and pull everywhere."""

        async def with_client():
            async with httpx.AsyncClient(timeout=30) as http:
                client = RegistryClient(self.url, http, self.holder("images:push images:pull", client="umec-platform"))
                return await work(client)

        return asyncio.run(with_client())

    def image(self, version=None):
        """Push a new image and return its digest."""
        stated = {} if version is None else {"annotations": {"org.opencontainers.image.version": version}}

        async def push(client):
            layer = uuid.uuid4().bytes
            config, blob = await client.push_blob(REPOSITORY, EMPTY_CONTENT), await client.push_blob(REPOSITORY, layer)
            manifest = {
                **stated,
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": Descriptor(EMPTY, config, len(EMPTY_CONTENT)).to_json(),
                "layers": [Descriptor("application/vnd.oci.image.layer.v1.tar", blob, len(layer)).to_json()],
            }
            return await client.push_manifest(REPOSITORY, None, encode(manifest), MANIFEST)

        return self.run(push)


@contextlib.contextmanager
def images_service(served, state, **options):
    key = ec.generate_private_key(ec.SECP256R1())
    keys = StaticKeys(KeySet([key.public_key()]))
    opened = []

    async def make(url):
        verifier = TokenVerifier(issuer=ISSUER, audience=f"{url}/", keys=keys, standings=None, clock=system_clock)
        settings = ImagesSettings(
            state=state, url=url, issuer=ISSUER, max_blob=8 * 1024 * 1024, builders={"harbour": ["builder"]}
        )
        service = await ImagesService.open(
            settings, verifier=verifier, identity_keys=keys, clock=system_clock, **options
        )
        opened.append(service)
        return service.app, service.close

    with served(make) as url:
        yield Site(url, key, opened[0])


@pytest.fixture(scope="module")
def site(served, tmp_path_factory):
    with images_service(served, tmp_path_factory.mktemp("images")) as opened:
        yield opened


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
    assert (builder.status_code, builder.json()["code"]) == (403, "promotion-self-approved")
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
                deny_list=site.service.denials.current,
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


def test_who_may_ask_whether_an_image_would_start(site, signed):
    def ask(authorize=None, **changes):
        url = f"{site.url}/images/v1/admission"
        headers = {} if authorize is None else asyncio.run(authorize("GET", url))
        question = {"tenant": "harbour", "repository": REPOSITORY, "digest": signed, "stage": "staging"}
        answer = httpx.get(url, params={**question, **changes}, headers=headers)
        return answer.status_code, answer.json()

    def code(*arguments, **changes):
        status, body = ask(*arguments, **changes)
        return status, body["code"]

    own, operator = site.holder("images:pull", tenant="harbour"), site.holder("images:pull")
    assert code() == (401, "token-missing")
    assert code(site.holder("images:push")) == (403, "token-scope")
    assert code(site.holder("images:pull", tenant="market")) == (403, "tenant-foreign")
    assert code(own, tenant="market") == (403, "tenant-foreign")
    assert code(own, repository="market/crane", tenant="market") == (403, "tenant-foreign")
    for change in ({"stage": "elsewhere"}, {"digest": "sha256:0"}, {"tenant": "No"}, {"repository": "r" * 256}):
        assert code(own, **change) == (400, "invalid-input")
    assert code(own, repository="harbour") == (400, "reference-invalid")
    for who in (own, operator):
        assert code(who) == (200, "promotion-missing")
    assert site.post(wanted(signed), site.holder("images:promote")).status_code == 201
    status, said = ask(own)
    assert (status, said["admitted"], said["checks"][-1]["policies"]) == (200, True, ["admit-staging"])


def test_the_explanation_follows_the_policies_of_the_moment(served, signing, tmp_path):
    policies = [load_default("admission")]
    with images_service(served, tmp_path, admission_policies=lambda: policies[-1]) as site:
        authority, digest = signing(site.url, site.key), site.image()
        site.run(lambda client: client.attach(REPOSITORY, digest, authority.statement(digest)))
        assert site.post(wanted(digest), site.holder("images:promote")).status_code == 201

        def ask():
            url = f"{site.url}/images/v1/admission"
            headers = asyncio.run(site.holder("images:pull")("GET", url))
            question = {"tenant": "harbour", "repository": REPOSITORY, "digest": digest, "stage": "staging"}
            return httpx.get(url, params=question, headers=headers).json()

        assert ask()["admitted"]
        policies.append(PolicySet(policies[0].policies_text + CLOSED, policies[0].schema_text))
        said = ask()
        assert (said["code"], said["checks"][-1]["policy_sha256"]) == ("admission-denied", policies[-1].digest)
        assert said["checks"][-1]["policies"] == ["forbid-everything"]


def test_junk_that_somebody_attaches_ends_neither_promotion_nor_admission(site, signed):
    async def junk(client):
        first = await client.attach(REPOSITORY, signed, b"junk")
        manifest = json.loads((await client.manifest(REPOSITORY, first))[2])
        for number in range(100):
            another = encode(manifest | {"annotations": {"number": str(number)}})
            await client.push_manifest(REPOSITORY, None, another, MANIFEST)

    with pytest.raises(RegistryRefused) as refused:
        site.run(junk)
    assert refused.value.code == "attachments-too-many"
    for stage in ("staging", "production"):
        assert site.post(wanted(signed, stage), site.holder("images:promote")).status_code == 201
    url = f"{site.url}/images/v1/admission"
    headers = asyncio.run(site.holder("images:pull")("GET", url))
    question = {"tenant": "harbour", "repository": REPOSITORY, "digest": signed}
    assert httpx.get(url, params=question, headers=headers, timeout=30).json()["admitted"]


def test_an_unsigned_image_is_not_promoted(site):
    answer = site.post(wanted(site.image()), site.holder("images:promote"))
    assert answer.json()["code"] == "image-unsigned"
    absent = site.post(wanted("sha256:" + "0" * 64), site.holder("images:promote"))
    assert absent.status_code == 404


def test_a_denied_image_is_neither_promoted_nor_admitted_until_that_is_lifted(site, authority, signed):
    async def work(client):
        admitter = Admitter(
            registry=client,
            verifier=BundleVerifier(authority.root),
            builders=BUILDERS,
            promotion_keys=[site.service.promoter.public_key],
            policies=lambda: load_default("admission"),
            clock=system_clock,
            deny_list=site.service.denials.current,
        )
        admission = admitter.admit(tenant="harbour", repository=REPOSITORY, digest=signed)
        assert (await admission).deny_list_version == site.service.denials.current().version
        assert (await asyncio.to_thread(site.deny, signed)).status_code == 201
        with pytest.raises(ImageDenied):
            await admitter.admit(tenant="harbour", repository=REPOSITORY, digest=signed)
        assert (await asyncio.to_thread(site.allow, signed)).status_code == 200
        return await admitter.admit(tenant="harbour", repository=REPOSITORY, digest=signed)

    manager = site.holder("images:promote")
    assert site.deny(signed).status_code == 201
    refused = site.post(wanted(signed), manager)
    assert (refused.status_code, refused.json()["code"]) == (403, "image-denied")
    assert site.allow(signed).status_code == 200
    for stage in ("staging", "production"):
        assert site.post(wanted(signed, stage), manager).status_code == 201
    assert site.run(work).policies == ("admit-production",)


def test_what_is_promoted_as_the_minimum_ends_what_came_before_also_after_a_restart(served, signing, tmp_path):
    with images_service(served, tmp_path) as site:
        authority, manager = signing(site.url, site.key), site.holder("images:promote")

        def version(text):
            digest = site.image(text)
            site.run(lambda client: client.attach(REPOSITORY, digest, authority.statement(digest)))
            return digest

        older, newer, newest = version("1.0.0"), version("1.1.0"), version("1.2.0")
        made = site.post(wanted(newer), manager)
        assert (made.status_code, made.json()["version"]) == (201, "1.1.0")
        assert site.post(wanted(older), manager).json()["code"] == "promotion-rollback"
        assert site.post(wanted(older) | {"rollback": "two\nlines"}, manager).status_code == 400
        assert site.post(wanted(older) | {"rollback": "1.1.0 is slow"}, manager).status_code == 201
        own = site.holder("images:promote", tenant="harbour")
        refused = site.post(wanted(newer, "production") | {"minimum": True}, own)
        assert (refused.status_code, refused.json()["code"]) == (403, "promotion-denied")
        assert site.service.denials.current() == DenyList()
        assert site.post(wanted(newer, "production") | {"minimum": True}, manager).status_code == 201
        assert site.service.denials.current() == DenyList(1, minimums={REPOSITORY: parse_version("1.1.0")})
        assert site.post(wanted(older, "production"), manager).json()["code"] == "image-rollback"
        log = asyncio.run(site.service.authority.journal.export())
        found = [entry["facts"] for entry in log["entries"] if entry["action"] == "image-promoted"]
        assert [(each["version"], each.get("rollback")) for each in found] == [
            ("1.1.0", None),
            ("1.0.0", "1.1.0 is slow"),
            ("1.1.0", None),
        ]
        approved = [entry["facts"] for entry in log["entries"] if entry["action"] == "image-promotion-approved"]
        assert [(each["stage"], each["version"], each.get("rollback")) for each in approved] == [
            ("staging", "1.1.0", None),
            ("staging", "1.0.0", "1.1.0 is slow"),
            ("production", "1.1.0", None),
        ]
        raised = [entry for entry in log["entries"] if entry["action"] == "image-minimum-raised"]
        assert [(each["actor"], each["subject"]) for each in raised] == [("release-manager", REPOSITORY)]
        assert site.post(wanted(newest), manager).status_code == 201
    with images_service(served, tmp_path) as site:
        history = StoredHistory(site.service.authority.store, site.service.authority.journal, system_clock)
        assert asyncio.run(history.highest(REPOSITORY, "staging")) == parse_version("1.2.0")
        assert asyncio.run(history.highest(REPOSITORY, "production")) == parse_version("1.1.0")
        assert asyncio.run(history.highest("harbour/other", "staging")) is None
        assert site.service.denials.current() == DenyList(1, minimums={REPOSITORY: parse_version("1.1.0")})


def test_a_minimum_that_was_cut_off_is_raised_by_the_same_wish_again(served, signing, tmp_path):
    with images_service(served, tmp_path) as site:
        authority, manager, digest = signing(site.url, site.key), site.holder("images:promote"), site.image("1.0.0")
        site.run(lambda client: client.attach(REPOSITORY, digest, authority.statement(digest)))
        assert site.post(wanted(digest), manager).status_code == 201
        made = site.post(wanted(digest, "production"), manager)  # and so far a crash would let it come
        unasked = site.post(wanted(digest, "production"), manager)
        assert (unasked.status_code, unasked.json()["code"]) == (409, "promotion-exists")
        again = site.post(wanted(digest, "production") | {"minimum": True}, manager)
        assert (again.status_code, again.json()["vsa_digest"]) == (201, made.json()["vsa_digest"])
        assert site.service.denials.current().minimums == {REPOSITORY: parse_version("1.0.0")}
        refused = site.post(wanted(digest, "production") | {"minimum": True}, manager)
        assert (refused.status_code, refused.json()["code"]) == (409, "promotion-exists")
        actions = [each["action"] for each in asyncio.run(site.service.authority.journal.export())["entries"]]
        wanted_actions = ["image-promotion-approved", "image-promoted", "image-minimum-raised"]
        assert [actions.count(each) for each in wanted_actions] == [2, 2, 1]


CLOSED = """
@id("forbid-everything")
forbid (principal, action, resource);
"""
FREEZE = """
@id("forbid-production-in-december")
forbid (principal, action, resource)
when { context.stage == "production" };
"""


def test_a_site_s_own_policies_decide_promotions(served, signing, tmp_path):
    default = load_default("promotion")
    own = PolicySet(default.policies_text + FREEZE, default.schema_text)
    with images_service(served, tmp_path, promotion_policies=own) as site:
        authority, digest = signing(site.url, site.key), site.image()
        site.run(lambda client: client.attach(REPOSITORY, digest, authority.statement(digest)))
        made = site.post(wanted(digest, "staging"), site.holder("images:promote"))
        assert (made.status_code, made.json()["policy_sha256"]) == (201, own.digest)
        refused = site.post(wanted(digest, "production"), site.holder("images:promote"))
        assert (refused.status_code, refused.json()["code"]) == (403, "promotion-denied")
        assert "forbid-production-in-december" in refused.json()["detail"]
