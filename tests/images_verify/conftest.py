"""A real private Sigstore on a real socket, and a registry that stores, and that its operator may corrupt."""

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field, replace

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from sigstore.dsse import StatementBuilder, Subject
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext

from umec_core.clock import system_clock
from umec_core.http import create_app
from umec_core.jose import KeySet, sign_jwt
from umec_core.tokens import StaticKeys
from umec_images.admission import Admitter, admit
from umec_images.authority import SigningAuthority
from umec_images.oci.errors import ManifestUnknown
from umec_images.oci.manifest import BUNDLE, EMPTY, EMPTY_CONTENT, MANIFEST, Descriptor, encode
from umec_images.promotion import Approver, DenyList, Promoter, Wish, trusted_builders
from umec_images.statements import Summary
from umec_images.verify import BundleVerifier
from umec_policies import load_default

ISSUER = "https://mgmt.test:8443"
REPOSITORY = "harbour/crane"
PROVENANCE = {
    "buildDefinition": {"buildType": "urn:umec:build:v1", "externalParameters": {}},
    "runDetails": {"builder": {"id": f"{ISSUER}/identity/v1/clients/builder"}},
}


def identity_of(client):
    return f"{ISSUER}/identity/v1/clients/{client}"


class Sigstore:
    """The private authority, and whoever signs with it."""

    def __init__(self, url, key):
        self.url = url
        self._key = key
        self._trust = ClientTrustConfig.from_json(httpx.get(f"{url}/sigstore/client_trust_config.json").text)
        self.root = httpx.get(f"{url}/sigstore/trusted_root.json").content

    def _signer(self, client):
        now = int(system_clock().timestamp())
        claims = {
            "iss": ISSUER,
            "sub": identity_of(client),
            "aud": "sigstore",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        }
        return SigningContext.from_trust_config(self._trust).signer(
            IdentityToken(sign_jwt(claims, self._key, typ="JWT"))
        )

    def statement(
        self,
        digest,
        *,
        client="builder",
        predicate_type="https://slsa.dev/provenance/v1",
        predicate=None,
        name=REPOSITORY,
    ):
        """Return a bundle with a statement about a digest."""
        subject = Subject(name=name, digest={"sha256": digest.removeprefix("sha256:")})
        builder = StatementBuilder().subjects([subject]).predicate_type(predicate_type)
        with self._signer(client) as signer:
            return signer.sign_dsse(builder.predicate(predicate or PROVENANCE).build()).to_json().encode()

    def artifact(self, content, *, client="builder"):
        """Return a bundle that signs bytes."""
        with self._signer(client) as signer:
            return signer.sign_artifact(content).to_json().encode()


@contextlib.contextmanager
def serve(make):
    """Serve the application that `await make(url)` returns, from an event loop in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    state = {}

    async def run():
        app, close = await make(url)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        server.capture_signals = contextlib.nullcontext
        state["server"] = server
        await server.serve(sockets=[listening])
        await close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not (state.get("server") and state["server"].started):
            time.sleep(0.01)
        assert thread.is_alive(), "the server did not start"
        yield url
        state["server"].should_exit = True
        thread.join(15)
    finally:
        listening.close()


@pytest.fixture(scope="session")
def served():
    return serve


@pytest.fixture(scope="session")
def signing():
    return Sigstore


@pytest.fixture(scope="session")
def sigstore(tmp_path_factory):
    key = ec.generate_private_key(ec.SECP256R1())

    async def make(url):
        opened = await SigningAuthority.open(
            tmp_path_factory.mktemp("authority"),
            url=url,
            issuer=ISSUER,
            keys=StaticKeys(KeySet([key.public_key()])),
            clock=system_clock,
        )
        return create_app("images", [opened.router]), opened.close

    with serve(make) as url:
        yield Sigstore(url, key)


@pytest.fixture(scope="session")
def verifier(sigstore):
    return BundleVerifier(sigstore.root)


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class CorruptibleRegistry:
    """Stores manifests and blobs under their digests; its operator may put other bytes in their place."""

    manifests: dict = field(default_factory=dict)
    blobs: dict = field(default_factory=dict)
    attached: dict = field(default_factory=dict)
    requests: int = 0

    def push(self, manifest):
        content = encode(manifest)
        self.manifests[digest_of(content)] = content
        return digest_of(content)

    async def manifest(self, _repository, reference):
        self.requests += 1
        await asyncio.sleep(0)
        if reference not in self.manifests:
            raise ManifestUnknown(f"no manifest {reference}")
        return reference, MANIFEST, self.manifests[reference]

    async def blob(self, _repository, digest, _max_size):
        return self.blobs[digest]

    async def referrers(self, _repository, digest, _artifact_type=None):
        return list(self.attached.get(digest, ()))

    async def attach(self, _repository, subject, content, artifact_type=BUNDLE):
        blob = digest_of(content)
        self.blobs[blob] = content
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": Descriptor(EMPTY, digest_of(EMPTY_CONTENT), len(EMPTY_CONTENT)).to_json(),
            "layers": [Descriptor(artifact_type, blob, len(content)).to_json()],
            "subject": Descriptor(MANIFEST, subject, len(self.manifests[subject])).to_json(),
        }
        digest = self.push(manifest)
        size = len(self.manifests[digest])
        self.attached.setdefault(subject, []).append(Descriptor(MANIFEST, digest, size, artifact_type))
        return digest


def image(marker, version=None):
    """Return the manifest of an image; another marker is another image."""
    layer = json.dumps(marker).encode()
    stated = {} if version is None else {"annotations": {"org.opencontainers.image.version": version}}
    return {
        **stated,
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor("application/vnd.oci.image.config.v1+json", digest_of(b"{}"), 2).to_json(),
        "layers": [Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(layer), len(layer)).to_json()],
    }


@pytest.fixture
def registry():
    return CorruptibleRegistry()


@pytest.fixture
def push(registry):
    """Return a function that stores an image and returns its digest."""
    return lambda marker="crane", version=None: registry.push(image(marker, version))


TRUSTED = trusted_builders(ISSUER, {"harbour": ["builder", "second-builder"], "market": ["builder"]})
MANAGER = Approver(identity_of("release-manager"), None)


class Remembered:
    """A history in memory."""

    def __init__(self):
        self.versions = {}
        self.full = False

    async def highest(self, repository, stage):
        return self.versions.get((repository, stage))

    async def approved(self, approval):
        if self.full:
            raise OSError("the disk is full")
        if approval.version is not None:
            place = approval.summary.repository, approval.summary.stage
            self.versions[place] = max(approval.version, self.versions.get(place, approval.version))


class Site:
    """The images service and a platform of one site, around one registry."""

    def __init__(self, registry, verifier):
        self.registry = registry
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.clock = system_clock
        self.verifier = verifier
        self.denied = DenyList()
        self.history = Remembered()
        self.promoter = self.make_promoter()

    def make_promoter(self, **changes):
        wanted = {
            "name": "https://registry.test:5443",
            "registry": self.registry,
            "verifier": self.verifier,
            "builders": TRUSTED,
            "key": self.key,
            "policies": load_default("promotion"),
            "history": self.history,
            "clock": self.clock,
            "deny_list": lambda: self.denied,
        }
        return Promoter(**{**wanted, **changes})

    def promote(self, digest, *stages, approver=MANAGER, repository=REPOSITORY, **wish):
        async def each():
            return [await self.promoter.promote(approver, Wish(repository, digest, stage, **wish)) for stage in stages]

        return asyncio.run(each())

    def admit(self, digest, **changes):
        wanted = {
            "tenant": "harbour",
            "repository": REPOSITORY,
            "stage": "production",
            "registry": self.registry,
            "verifier": self.verifier,
            "builders": TRUSTED,
            "promotion_keys": [self.key.public_key()],
            "policies": load_default("admission"),
            "now": self.clock(),
            "deny_list": self.denied,
        }
        return asyncio.run(admit(digest=digest, **{**wanted, **changes}))

    def attach(self, digest, content, **kind):
        return asyncio.run(self.registry.attach(REPOSITORY, digest, content, **kind))

    def summary(self, digest, stage="production", **changes):
        made = Summary(
            repository=REPOSITORY,
            digest=digest,
            stage=stage,
            verifier="https://registry.test:5443",
            verified_at=self.clock(),
            policy_digest="0" * 64,
            inputs=("0" * 64,),
            approver=MANAGER.identity,
            builder=identity_of("builder"),
        )
        return replace(made, **changes)


@pytest.fixture
def site(registry, verifier):
    return Site(registry, verifier)


@pytest.fixture
def signed(site, sigstore, push):
    """Return the digest of an image with a trusted builder's provenance."""
    digest = push()
    site.attach(digest, sigstore.statement(digest))
    return digest


@pytest.fixture
def admitter(site):
    """Return a function that makes a platform's admission: a function of a digest."""

    def make(**changes):
        wanted = {
            "registry": site.registry,
            "verifier": site.verifier,
            "builders": TRUSTED,
            "promotion_keys": [site.key.public_key()],
            "policies": lambda: load_default("admission"),
            "clock": site.clock,
            "deny_list": lambda: site.denied,
        }
        platform = Admitter(**{**wanted, **changes})
        return lambda digest: asyncio.run(platform.admit(tenant="harbour", repository=REPOSITORY, digest=digest))

    return make
