"""Images that must not be pushed, not be promoted, or not run."""

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import httpx

from umec_platform.demo import applications, images
from umec_platform.demo.attacks.stranger import succeed
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.hand import Hand
from umec_platform.demo.run import REGISTRY, Run, code_of
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES

__all__ = ["ATTACKS", "Supply"]

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
NAME: Final = "small"


class Supply:
    """What those who supply images have: the city's builder and intern, and whoever may write to the store.

    One small image of the city goes the way that images go; every attack takes it from where it has come to. That the
    way leads to a start is shown by the example.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.http = run.clean_up.enter_context(run.http())
        self.builder = Hand.of(self.http, run.folder / "city-builder.json")
        self.operator = Hand.of(self.http, run.state / "operator.json")
        self._passed: list[str] = []

    @cached_property
    def digest(self) -> str:
        """The digest of the small image, pushed."""
        return images.small_image(self.run, NAME)

    @cached_property
    def appd(self) -> str:
        """The package that names it."""
        return applications.onboard(self.run, "city", self.digest, name=NAME)

    def sign(self, signer: str) -> None:
        """Have somebody sign the image."""
        images.sign(self.run, images.image_of("city", NAME, self.digest), NAME, signer)

    def signed(self) -> None:
        """Have its builder sign it, if that was not yet."""
        self._once("signed", lambda: self.sign("city-builder"))

    def promoted(self, stage: str) -> None:
        """Have the operator promote it, if that was not yet."""
        self.signed()
        self._once(stage, lambda: succeed(self.promote(self.operator, stage), f"no promotion to {stage}"))

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the example."""
        folder = self.run.folder / "hello"
        digest = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
        return dict(json.loads((folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_text()))

    def push(self, repository: str, tag: str, manifest: dict[str, Any]) -> httpx.Response:
        """Push a manifest under a tag, as the city's builder."""
        url = f"{REGISTRY}/v2/{repository}/manifests/{tag}"
        token, content = self.builder.token(f"{REGISTRY}/"), json.dumps(manifest).encode()
        return self.builder.call("PUT", url, token, content=content, headers={"Content-Type": MANIFEST})

    def promote(self, who: Hand, stage: str) -> httpx.Response:
        """Ask for a promotion of the image."""
        body = {"repository": f"city/{NAME}", "digest": self.digest, "stage": stage}
        return who.call("POST", f"{REGISTRY}/images/v1/promotions", who.token(f"{REGISTRY}/"), json=body)

    def start(self) -> str | None:
        """Have the image started; return the code of the refusal."""
        try:
            applications.instantiate(self.run, self.appd, NODES[0])
        except Broken as refused:
            return refused.code
        return None

    def _once(self, what: str, work: Callable[[], object]) -> None:
        if what not in self._passed:
            work()
            self._passed.append(what)


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
    """Start an image that nobody signed."""
    return supply.start()


def foreign_identity(supply: Supply) -> str | None:
    """Sign as somebody who may push, and is no builder."""
    supply.sign("city-intern")
    return supply.start()


def straight_to_production(supply: Supply) -> str | None:
    """Promote to production what never was in staging."""
    supply.signed()
    return code_of(supply.promote(supply.operator, "production"))


def own_work(supply: Supply) -> str | None:
    """Promote one's own work, as its builder."""
    supply.signed()
    return code_of(supply.promote(supply.builder, "staging"))


def staging_only(supply: Supply) -> str | None:
    """Start in production what was promoted to staging."""
    supply.promoted("staging")
    return supply.start()


def denied(supply: Supply) -> str | None:
    """Start what is signed and promoted, and was found to be harmful since."""
    supply.promoted("staging")
    supply.promoted("production")
    denials, body = f"{REGISTRY}/images/v1/denials", {"digest": supply.digest, "reason": "shown in the demo"}
    supply.operator.have("POST", denials, f"{REGISTRY}/", json=body)
    code = supply.start()
    supply.operator.have("DELETE", f"{denials}/{supply.digest}", f"{REGISTRY}/")
    return code


def changed_layer(supply: Supply) -> str | None:
    """Change one byte of a layer in the registry's store, behind the gateway, when all is signed and promoted."""
    supply.promoted("staging")
    supply.promoted("production")
    images.damage_layer(supply.run, NAME)
    return supply.start()


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
    Attack("deny-listed", "image-denied", "a tenant's account", denied),
    Attack("layer-byte-changed", "blob-digest", "the registry's store", changed_layer),
)
