"""How long the admission of an image with five attestations takes, the first time and when it is remembered.

    python benchmarks/admission.py [--json] [--repeats 5] [--images 8]

The images service with a real registry behind it runs on one core, the platform's admission on the other, TLS with open
connections between them. Each image has five signed statements (provenance, SBOM, two kinds of tests, a review) and the
summaries of its promotions as referrers. Cold: everything is fetched and verified, the verifier itself is loaded.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, generate_private_key
from measuring import Row, at_most, options, percentile, publish
from starlette.types import ASGIApp
from webload import Served, serving

from umec_core.client import http_client
from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.keys import load_or_create_key
from umec_core.tokens import ACCESS_TOKEN_TYPE, StaticKeys, TokenVerifier
from umec_images.admission import Admitter
from umec_images.build.signing import sign_statement
from umec_images.gateway.service import ImagesService, ImagesSettings, site_builders
from umec_images.oci.client import Authorize, RegistryClient
from umec_images.oci.manifest import MANIFEST, Descriptor, encode
from umec_images.promotion import DenyList
from umec_images.promotion.evidence import fetch_attached, prove
from umec_images.statements import Statement, Subject, encode_statement
from umec_images.statements.summary import STAGES
from umec_images.verify import BundleVerifier
from umec_policies import load_default

__all__ = ["main"]

ISSUER = "https://localhost:8443"
TENANT, REPOSITORY = "harbour", "harbour/crane"
BUILDER = f"{ISSUER}/identity/v1/clients/{TENANT}-builder"
STATEMENTS: dict[str, dict[str, Any]] = {
    "https://slsa.dev/provenance/v1": {
        "buildDefinition": {"buildType": "urn:umec:build:v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": BUILDER}},
    },
    "https://spdx.dev/Document": {
        "spdxVersion": "SPDX-2.3",
        "packages": [{"name": f"package-{number}", "versionInfo": "1.0"} for number in range(300)],
    },
    "https://in-toto.io/attestation/test-result/v0.1": {"result": "PASSED", "configuration": []},
    "https://in-toto.io/attestation/vulns/v0.1": {"scanner": {"uri": "urn:scanner"}, "metadata": {}},
    "https://in-toto.io/attestation/human-review/v0.1": {"result": "APPROVED"},
}


class Party:
    """The authorization server, and everybody with its tokens."""

    def __init__(self) -> None:
        self.issuer = generate_private_key(SECP256R1())
        self._holder = generate_private_key(SECP256R1())

    @property
    def keys(self) -> StaticKeys:
        """The keys of the authorization server."""
        return StaticKeys(KeySet([self.issuer.public_key()]))

    def _sign(self, claims: Mapping[str, Any], typ: str) -> str:
        now = int(system_clock().timestamp())
        times = {"iat": now, "nbf": now, "exp": now + 300, "jti": uuid.uuid4().hex}
        return sign_jwt({"iss": ISSUER, **times, **claims}, self.issuer, typ=typ)

    def identity(self) -> str:
        """Return a signing identity of the builder."""
        return self._sign({"sub": BUILDER, "aud": "sigstore"}, "JWT")

    def authorized(self, base: str, scope: str, **claims: str) -> Authorize:
        """Return what authorises each request with one token that is bound to our key."""
        known = {"sub": "client", "client_id": "client", "aud": f"{base}/", "cnf": {"jkt": thumbprint(self._holder)}}
        token = self._sign({**known, "scope": scope, **claims}, ACCESS_TOKEN_TYPE)

        async def authorize(method: str, url: str) -> Mapping[str, str]:
            proof = make_proof(self._holder, method, url, now=system_clock(), access_token=token)
            return {"Authorization": f"DPoP {token}", "DPoP": proof}

        return authorize


@contextlib.asynccontextmanager
async def images(state: Path, url: str, party: Party) -> AsyncIterator[ASGIApp]:
    """The images service."""
    verifier = TokenVerifier(issuer=ISSUER, audience=f"{url}/", keys=party.keys, standings=None, clock=system_clock)
    settings = ImagesSettings(state=state, url=url, issuer=ISSUER)
    opened = await ImagesService.open(settings, verifier=verifier, identity_keys=party.keys, clock=system_clock)
    yield opened.app
    await opened.close()


@dataclass(frozen=True)
class Site:
    """The running images service, seen from outside."""

    url: str
    party: Party
    ca: str
    http: httpx.AsyncClient

    def registry(self, scope: str, **claims: str) -> RegistryClient:
        """Return a client with such a token."""
        return RegistryClient(self.url, self.http, self.party.authorized(self.url, scope, **claims))

    async def read(self, path: str) -> bytes:
        """Return a public document."""
        return (await self.http.get(f"{self.url}{path}")).raise_for_status().content

    async def publish(self, marker: int) -> str:
        """Push an image, sign five statements about it, promote it to production; returns its digest."""
        registry = self.registry("images:push images:pull", tenant=TENANT)
        layer = await registry.push_blob(REPOSITORY, f"layer {marker}".encode())
        config = await registry.push_blob(REPOSITORY, b"{}")
        described = [
            Descriptor("application/vnd.oci.image.config.v1+json", config, 2),
            Descriptor("application/vnd.oci.image.layer.v1.tar", layer, len(f"layer {marker}")),
        ]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0].to_json()}
        content = encode({**manifest, "layers": [described[1].to_json()]})
        digest = await registry.push_manifest(REPOSITORY, None, content, MANIFEST)
        trust = (await self.read("/sigstore/client_trust_config.json")).decode()
        for kind, predicate in STATEMENTS.items():
            subject = Subject(REPOSITORY, {"sha256": digest.removeprefix("sha256:")})
            statement = encode_statement(Statement((subject,), kind, predicate))
            bundle = await asyncio.to_thread(
                sign_statement, statement, trust_config=trust, identity_token=self.party.identity(), ca=self.ca
            )
            await registry.attach(REPOSITORY, digest, bundle)
        await self._promote(digest)
        return digest

    async def _promote(self, digest: str) -> None:
        url = f"{self.url}/images/v1/promotions"
        authorize = self.party.authorized(self.url, "images:promote", client_id="release-manager")
        for stage in STAGES:
            wanted = {"repository": REPOSITORY, "digest": digest, "stage": stage}
            answer = await self.http.post(url, json=wanted, headers=await authorize("POST", url))
            if answer.status_code != 201:
                raise RuntimeError(answer.text)


async def timed(admitter: Admitter, digest: str) -> float:
    """Return the milliseconds of one admission."""
    began = time.perf_counter()
    await admitter.admit(tenant=TENANT, repository=REPOSITORY, digest=digest)
    return 1000 * (time.perf_counter() - began)


async def halves(site: Site, verifier: BundleVerifier, digest: str) -> tuple[float, float]:
    """Return the milliseconds for fetching what is attached to an image, and for verifying it."""
    began = time.perf_counter()
    attached = await fetch_attached(site.registry("images:pull"), REPOSITORY, digest)
    fetched = time.perf_counter()
    prove(attached, verifier, site_builders(ISSUER, {})(TENANT), system_clock())
    return 1000 * (fetched - began), 1000 * (time.perf_counter() - fetched)


async def admissions(site: Site, promoter: EllipticCurvePublicKey, images: int, repeats: int) -> list[Row]:
    """Publish images, and admit each of them several times by an admitter that knows nothing yet."""
    digests = [await site.publish(number) for number in range(images)]
    verifier, policies = BundleVerifier(await site.read("/sigstore/trusted_root.json")), load_default("admission")
    cold, warm = [], []
    for turn in range(repeats + 1):
        admitter = Admitter(
            registry=site.registry("images:pull"),
            verifier=verifier,
            builders=site_builders(ISSUER, {}),
            promotion_keys=[promoter],
            policies=lambda: policies,
            deny_list=DenyList,
            clock=system_clock,
        )
        for digest in digests:
            first = await timed(admitter, digest)
            again = [await timed(admitter, digest) for _ in range(20)]
            if turn > 0:  # the first turn warms everything up
                cold.append(first)
                warm += again
    parts = [await halves(site, verifier, digest) for digest in digests * repeats]
    return [
        Row("fetching what is attached, median", statistics.median(one for one, _ in parts), "ms"),
        Row("verifying it, median", statistics.median(two for _, two in parts), "ms"),
        Row(f"admission, {len(STATEMENTS)} attestations, cold, median", statistics.median(cold), "ms"),
        at_most(f"admission, {len(STATEMENTS)} attestations, cold, p95", percentile(cold, 95), "ms", 50),
        at_most(f"admission, {len(STATEMENTS)} attestations, warm, p95", percentile(warm, 95), "ms", 2),
    ]


def measure(images_wanted: int, repeats: int) -> list[Row]:
    """Measure."""
    party = Party()

    async def run(server: Served, folder: Path) -> list[Row]:
        ca = (folder / "tls" / "server-ca.pem").read_text()
        async with http_client(ca) as http:
            site = Site(f"https://localhost:{server.port}", party, ca, http)
            promoter = load_or_create_key(folder / "images" / "promotion.key").public_key()
            return await admissions(site, promoter, images_wanted, repeats)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def opens(port: int) -> contextlib.AbstractAsyncContextManager[ASGIApp]:
            return images(folder / "images", f"https://localhost:{port}", party)

        with serving(opens, tls=folder / "tls") as server:
            rows = asyncio.run(run(server, folder))
            return [*rows, Row("peak memory of the images service", server.peak_mb(), "MB")]


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=8)
    given = parser.parse_args()
    publish(measure(given.images, given.repeats), as_json=given.json)


if __name__ == "__main__":
    main()
