"""Links 7 and 8: an application image is built, pushed, signed and promoted; and what happens to those that are not."""

import json
from pathlib import Path
from typing import Final

from umec_platform.demo.command import umec
from umec_platform.demo.run import REGISTRY, Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES, StreetNode

__all__ = ["EXAMPLE", "build_example", "image_of", "publish", "register_builders", "sign", "small_image"]

EXAMPLE: Final = Path(__file__).parents[3] / "docs" / "examples" / "hello"
STAGES: Final = ("staging", "production")


def register_builders(run: Run) -> None:
    """Give every tenant a builder, as a CI pipeline has one; and the city somebody who may push, and is no builder."""
    for node in NODES:
        _register(run, f"{node.tenant}-builder", node.tenant)
    _register(run, "city-intern", "city")


def build_example(run: Run) -> str:
    """Build the example application from Debian packages of this machine; return its digest."""
    built = umec("image", "build", str(EXAMPLE), "--out", str(run.folder / "hello"), "--tag", "1.0.0")
    run.timeline.note(f"docs/examples/hello is an image of {built['size'] / 1e6:.0f} MB: {built['digest'][:19]}…")
    return str(built["digest"])


def publish(run: Run, node: StreetNode, digest: str) -> None:
    """Link 7: the tenant's builder pushes and signs. Link 8: the operator promotes, stage by stage."""
    builder = credential(run, f"{node.tenant}-builder")
    image = image_of(node.tenant, "hello", digest)
    broken = node is NODES[0]
    layout = str(run.folder / "hello")
    with run.timeline.link(
        7, f"{node.tenant}/hello pushed and signed by its builder; the signature verifies"
    ) as evidence:
        umec("image", "push", layout, f"{_registry()}/{node.tenant}/hello:1.0.0", "--credential", builder)
        signer = credential(run, "city-intern") if broken and run.sabotaged(7) else builder
        umec("image", "sign", image, "--layout", layout, "--credential", signer)
        verified = umec("image", "verify", image, "--identity", f"{node.tenant}-builder", "--credential", builder)
        evidence.data = json.dumps(verified, sort_keys=True).encode()
        evidence.note = f"{node.tenant}-builder"
    with run.timeline.link(8, f"{node.tenant}/hello promoted to staging, then to production") as evidence:
        stages = STAGES[1:] if broken and run.sabotaged(8) else STAGES
        summaries = [promote(run, image, stage) for stage in stages]
        evidence.data = "".join(summaries).encode()
        evidence.note = "a signed summary each"


def small_image(run: Run, name: str) -> str:
    """Build and push an image of one file, as the city's intern; return its digest."""
    source = run.folder / f"source-{name}"
    (source / "app").mkdir(parents=True)
    (source / "app" / "README").write_text(f"{name}\n" * 64)
    description = 'entrypoint = ["/app/README"]\n\n[[folders]]\nsource = "app"\ntarget = "/app"\n'
    (source / "image.toml").write_text(description)
    layout = run.folder / f"image-{name}"
    built = umec("image", "build", str(source), "--out", str(layout), "--tag", "1")
    intern = credential(run, "city-intern")
    umec("image", "push", str(layout), f"{_registry()}/city/{name}:1", "--credential", intern)
    return str(built["digest"])


def sign(run: Run, image: str, name: str, signer: str) -> None:
    """Sign a small image as somebody."""
    layout = str(run.folder / f"image-{name}")
    umec("image", "sign", image, "--layout", layout, "--credential", credential(run, signer))


def promote(run: Run, image: str, stage: str) -> str:
    """Promote an image as the operator; return the digest of the summary."""
    return str(umec("image", "promote", image, "--stage", stage, "--credential", run.credential)["vsa_digest"])


def damage_layer(run: Run, name: str) -> None:
    """Change one byte of an image's layer in the registry's own store, behind the gateway."""
    index = json.loads((run.folder / f"image-{name}" / "index.json").read_text())
    blobs = run.folder / f"image-{name}" / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    layer = manifest["layers"][-1]["digest"].removeprefix("sha256:")
    stored = list((run.state / "images").rglob(f"blobs/sha256/{layer[:2]}/{layer}/data"))
    if len(stored) != 1:
        raise Broken(f"expected the layer once in the registry's store, found it {len(stored)} times")
    content = bytearray(stored[0].read_bytes())
    content[len(content) // 2] ^= 1
    stored[0].write_bytes(content)


def image_of(tenant: str, name: str, digest: str) -> str:
    """Return the full name of an image by digest."""
    return f"{_registry()}/{tenant}/{name}@{digest}"


def credential(run: Run, client: str) -> str:
    """Return the credential file of a client that was registered here."""
    return str(run.folder / f"{client}.json")


def _registry() -> str:
    return REGISTRY.removeprefix("https://")


def _register(run: Run, client: str, tenant: str) -> None:
    options = ["--kind", "builder", "--tenant", tenant, "--scope", "images:push", "--scope", "images:pull"]
    run.operator("client", "add", client, *options, "--out", credential(run, client))
