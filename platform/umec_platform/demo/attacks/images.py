"""Images that must not be pushed, not be promoted, or not run."""

import json
from functools import cached_property
from typing import Any, Final

import httpx

from umec_platform.demo import applications, images
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.hand import Hand
from umec_platform.demo.run import REGISTRY, Run, code_of
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES

__all__ = ["ATTACKS", "Supply"]

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


class Supply:
    """What those who supply images have: the city's builder and intern, and whoever may write to the store."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.http = run.clean_up.enter_context(run.http())
        self.builder = Hand.of(self.http, run.folder / "city-builder.json")
        self.operator = Hand.of(self.http, run.state / "operator.json")

    @cached_property
    def unpromoted(self) -> str:
        """The digest of an image that its builder signed, and that nobody has promoted."""
        digest = images.small_image(self.run, "staging-only")
        images.sign(self.run, images.image_of("city", "staging-only", digest), "staging-only", "city-builder")
        return digest

    def manifest(self) -> dict[str, Any]:
        """The manifest of the example."""
        folder = self.run.folder / "hello"
        digest = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
        return dict(json.loads((folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_text()))

    def push(self, repository: str, tag: str, manifest: dict[str, Any]) -> httpx.Response:
        """Push a manifest under a tag, as the city's builder."""
        url = f"{REGISTRY}/v2/{repository}/manifests/{tag}"
        token, content = self.builder.token(f"{REGISTRY}/"), json.dumps(manifest).encode()
        return self.builder.call("PUT", url, token, content=content, headers={"Content-Type": MANIFEST})

    def promote(self, who: Hand, name: str, digest: str, stage: str) -> httpx.Response:
        """Ask for a promotion of an image of the city."""
        body = {"repository": f"city/{name}", "digest": digest, "stage": stage}
        return who.call("POST", f"{REGISTRY}/images/v1/promotions", who.token(f"{REGISTRY}/"), json=body)

    def start(self, name: str, digest: str) -> str | None:
        """Onboard an image and have it started; return the code of the refusal."""
        appd = applications.onboard(self.run, "city", digest, name=name)
        try:
            applications.instantiate(self.run, appd, NODES[0])
        except Broken as refused:
            return refused.code
        return None


def moved_tag(supply: Supply) -> str | None:
    """Let a tag lead to something else than what was signed under it."""
    changed = supply.manifest() | {"annotations": {"changed": "yes"}}
    taken = supply.push("city/hello", "1.0.1", changed)
    if not taken.is_success:
        raise Broken(f"the manifest was refused under a new tag: {taken.text}", code_of(taken))
    return code_of(supply.push("city/hello", "1.0.0", changed))


def foreign_repository(supply: Supply) -> str | None:
    """Push into the repository of another tenant."""
    manifest = supply.manifest()
    taken = supply.push("city/hello", "1.0.2", manifest)
    if not taken.is_success:
        raise Broken(f"the manifest was refused in the own repository: {taken.text}", code_of(taken))
    return code_of(supply.push("transit/hello", "1.0.2", manifest))


def unsigned(supply: Supply) -> str | None:
    """Start an image that nobody signed; the example, which is signed and promoted, runs."""
    digest = images.small_image(supply.run, "unsigned")
    return supply.start("unsigned", digest)


def foreign_identity(supply: Supply) -> str | None:
    """Sign as somebody who may push, and is no builder."""
    digest = images.small_image(supply.run, "foreign-identity")
    images.sign(supply.run, images.image_of("city", "foreign-identity", digest), "foreign-identity", "city-intern")
    return supply.start("foreign-identity", digest)


def straight_to_production(supply: Supply) -> str | None:
    """Promote to production what never was in staging."""
    return code_of(supply.promote(supply.operator, "staging-only", supply.unpromoted, "production"))


def own_work(supply: Supply) -> str | None:
    """Promote one's own work, as its builder."""
    return code_of(supply.promote(supply.builder, "staging-only", supply.unpromoted, "staging"))


def staging_only(supply: Supply) -> str | None:
    """Start in production what was promoted to staging."""
    made = supply.promote(supply.operator, "staging-only", supply.unpromoted, "staging")
    if not made.is_success:
        raise Broken(f"the operator could not promote to staging: {made.text}", code_of(made))
    return supply.start("staging-only", supply.unpromoted)


def changed_layer(supply: Supply) -> str | None:
    """Change one byte of a layer in the registry's store, behind the gateway, when all is signed and promoted."""
    name, run = "layer-byte-changed", supply.run
    digest = images.small_image(run, name)
    images.sign(run, images.image_of("city", name, digest), name, "city-builder")
    for stage in ("staging", "production"):
        made = supply.promote(supply.operator, name, digest, stage)
        if not made.is_success:
            raise Broken(f"the operator could not promote to {stage}: {made.text}", code_of(made))
    images.damage_layer(run, name)
    return supply.start(name, digest)


PUSH: Final = "a credential that may push"
BUILDER: Final = "the builder's credential"

ATTACKS: Final[tuple[Attack[Supply], ...]] = (
    Attack("tag-moved", "tag-immutable", BUILDER, moved_tag),
    Attack("push-to-another-tenant", "tenant-foreign", BUILDER, foreign_repository),
    Attack("unsigned", "image-unsigned", PUSH, unsigned),
    Attack("foreign-identity", "image-identity", f"{PUSH} and sign", foreign_identity),
    Attack("straight-to-production", "promotion-denied", "an operator's account", straight_to_production),
    Attack("promotion-by-its-builder", "token-scope", BUILDER, own_work),
    Attack("staging-only", "promotion-stage", "a tenant's account", staging_only),
    Attack("layer-byte-changed", "blob-digest", "the registry's store", changed_layer),
)
