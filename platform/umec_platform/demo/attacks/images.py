"""Images that must not be pushed, not be promoted, or not run."""

import json
from typing import Final

from umec_images.testing.thief import Thief
from umec_platform.demo import applications, images
from umec_platform.demo.attacks.stranger import succeed
from umec_platform.demo.attacks.supply import ENVELOPE, NAME, NEWER, Supply
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.hand import IDENTITY
from umec_platform.demo.run import MANAGEMENT, REGISTRY, code_of
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES

__all__ = ["ATTACKS", "Supply"]

BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"


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


def retired_authority(supply: Supply) -> str | None:
    """Sign as the builder, with the stolen keys of the authority that the site retired; the clock is the site's own."""
    clock, ca = f"{REGISTRY}/sigstore/tsa/api/v1/timestamp", supply.run.state / "server-ca.pem"
    builder = f"{IDENTITY}/clients/city-builder"
    with Thief(supply.run.folder / images.STOLEN, issuer=MANAGEMENT) as thief:
        forged = thief.sign(f"city/{NAME}", supply.digest, builder, clock=clock, ca=ca.read_text())
    supply.attach(forged, BUNDLE)
    return supply.start()


def foreign_identity(supply: Supply) -> str | None:
    """Sign as somebody who may push, and is no builder."""
    supply.sign("city-intern")
    return supply.start()


def straight_to_production(supply: Supply) -> str | None:
    """Promote to production what never was in staging."""
    supply.signed()
    return code_of(supply.promote(supply.operator, "production"))


def summary_of_another(supply: Supply) -> str | None:
    """Attach the summary that promoted another image, honestly signed by the promotion key."""
    supply.signed()
    digest = json.loads((supply.run.folder / "hello" / "index.json").read_text())["manifests"][0]["digest"]
    found = supply.read(f"/v2/city/hello/referrers/{digest}").json()["manifests"]
    summary = next(each["digest"] for each in reversed(found) if each["artifactType"] == ENVELOPE)
    layer = supply.read(f"/v2/city/hello/manifests/{summary}").json()["layers"][0]["digest"]
    supply.attach(supply.read(f"/v2/city/hello/blobs/{layer}").content, ENVELOPE)
    return supply.start()


def own_work(supply: Supply) -> str | None:
    """Promote one's own work, as its builder."""
    supply.signed()
    return code_of(supply.promote(supply.builder, "staging"))


def staging_only(supply: Supply) -> str | None:
    """Start in production what was promoted to staging."""
    supply.promoted("staging")
    return supply.start()


def self_approved(supply: Supply) -> str | None:
    """Promote as an operator what one built as a builder, before one became an operator."""
    supply.promoted("staging")
    supply.become_operator()
    code = code_of(supply.promote(supply.builder, "staging"))
    supply.become_builder()
    return code


def promotion_back(supply: Supply) -> str | None:
    """Promote an earlier version, honestly built and signed, after a later one."""
    supply.promoted("staging")
    return code_of(supply.promote(supply.operator, "staging", supply.older))


def rolled_back(supply: Supply) -> str | None:
    """Start an earlier version, honestly signed and promoted, after the operator ended it."""
    for stage in ("staging", "production"):
        supply.promoted(stage)
        back = supply.promote(supply.operator, stage, supply.older, rollback="shown in the demo")
        succeed(back, f"an operator could not go back on purpose in {stage}")
    package = supply.package(NAME, supply.older, f"{NAME}-older")
    if code := supply.would_start(supply.older):
        raise Broken("the earlier version was not admitted even without a minimum", code)
    minimum = {"repository": f"city/{NAME}", "version": NEWER, "reason": "shown in the demo"}
    supply.operator.have("PUT", f"{REGISTRY}/images/v1/minimums", f"{REGISTRY}/", json=minimum)
    if code := supply.would_start(supply.digest):
        raise Broken("the minimum itself was not admitted", code)
    return supply.start(package)


def swapped_after_admission(supply: Supply) -> str | None:
    """Move the tag and put another manifest in the place of the admitted one, between admission and start."""
    run, tag = supply.run, "docker/registry/v2/repositories/city/hello/_manifests/tags/1.0.0/current/link"
    digest = json.loads((run.folder / "hello" / "index.json").read_text())["manifests"][0]["digest"]
    package = supply.package("hello", digest, "again")
    honest = applications.instantiate(run, package, NODES[0])  # from now on the admission of this digest is kept
    run.operator("app", "terminate", str(honest["id"]))
    link, manifest = run.state / "images" / "registry" / tag, images.stored(run, digest)
    before = (link.read_bytes(), manifest.read_bytes())
    link.write_text(supply.digest)
    manifest.write_bytes(images.stored(run, supply.digest).read_bytes())
    code = supply.start(package)
    link.write_bytes(before[0])
    manifest.write_bytes(before[1])
    return code


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
    images.damage_layer(supply.run, NAME, NEWER)
    return supply.start()


PUSH: Final = "a credential that may push"
BUILDER: Final = "the builder's credential"
TENANT: Final = "a tenant's account"
STORE: Final = "the registry's store"
STOLEN: Final = "the disk of the authority that the site retired"

ATTACKS: Final[tuple[Attack[Supply], ...]] = (
    Attack("tag-moved", "tag-immutable", BUILDER, moved_tag),
    Attack("push-to-another-tenant", "tenant-foreign", BUILDER, foreign_repository),
    Attack("unsigned", "image-unsigned", PUSH, unsigned),
    Attack("signed-by-retired-authority", "image-authority-expired", f"{STOLEN}, and {PUSH}", retired_authority),
    Attack("foreign-identity", "image-identity", f"{PUSH} and sign", foreign_identity),
    Attack("straight-to-production", "promotion-denied", "an operator's account", straight_to_production),
    Attack("summary-of-another-image", "promotion-missing", PUSH, summary_of_another),
    Attack("promotion-by-its-builder", "token-scope", BUILDER, own_work),
    Attack("staging-only", "promotion-stage", TENANT, staging_only),
    Attack("self-approved", "promotion-self-approved", "an operator's account, of who was its builder", self_approved),
    Attack("promotion-rolled-back", "promotion-rollback", "an operator's account", promotion_back),
    Attack("image-rolled-back", "image-rollback", TENANT, rolled_back),
    Attack("swapped-after-admission", "manifest-damaged", STORE, swapped_after_admission),
    Attack("deny-listed", "image-denied", TENANT, denied),
    Attack("layer-byte-changed", "blob-digest", STORE, changed_layer),
)
