"""Links 7 and 8: an application image is built, pushed, signed and promoted; and what happens to those that are not."""

import json
from pathlib import Path
from typing import Final

from umec_images.testing.thief import retired_authority
from umec_platform.demo.command import umec
from umec_platform.demo.run import REGISTRY, Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES, StreetNode

__all__ = [
    "EXAMPLE",
    "STOLEN",
    "attach",
    "build_example",
    "damage_layer",
    "image_of",
    "publish",
    "register_builders",
    "retire_authority",
    "sign",
    "small_image",
    "stored",
]

EXAMPLE: Final = Path(__file__).parents[3] / "docs" / "examples" / "hello"
STAGES: Final = ("staging", "production")
STOLEN: Final = "stolen-authority"
"""The folder of whoever has the keys of the authority that the site retired."""


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


def retire_authority(run: Run) -> None:
    """Give the site a past: a signing authority that it retired a month ago, and whose disk was stolen before."""
    state = run.state / "images" / "authority"
    state.mkdir(mode=0o700, parents=True)
    run.state.chmod(0o700)
    retired_authority(state, run.folder / STOLEN, url=REGISTRY)


def small_image(run: Run, name: str, version: str) -> str:
    """Build and push a version of an image of one file, as the city's intern; return its digest."""
    source = run.folder / f"source-{name}-{version}"
    (source / "app").mkdir(parents=True)
    (source / "app" / "README").write_text(f"{name} {version}\n" * 64)
    description = (
        f'version = "{version}"\nentrypoint = ["/app/README"]\n\n[[folders]]\nsource = "app"\ntarget = "/app"\n'
    )
    (source / "image.toml").write_text(description)
    layout = _layout(run, name, version)
    built = umec("image", "build", str(source), "--out", str(layout), "--tag", version)
    intern = credential(run, "city-intern")
    umec("image", "push", str(layout), f"{_registry()}/city/{name}:{version}", "--credential", intern)
    return str(built["digest"])


def sign(run: Run, name: str, version: str, digest: str, signer: str) -> None:
    """Sign a small image as somebody."""
    layout = str(_layout(run, name, version))
    umec("image", "sign", image_of("city", name, digest), "--layout", layout, "--credential", credential(run, signer))


def attach(run: Run, image: str, file: Path, artifact_type: str) -> None:
    """Attach a file to an image of the city, as its builder."""
    options = ["--artifact-type", artifact_type, "--credential", credential(run, "city-builder")]
    umec("image", "attach", image, str(file), *options)


def promote(run: Run, image: str, stage: str) -> str:
    """Promote an image as the operator; return the digest of the summary."""
    return str(umec("image", "promote", image, "--stage", stage, "--credential", run.credential)["vsa_digest"])


def stored(run: Run, digest: str) -> Path:
    """Return the file of a manifest or layer in the registry's own store, behind the gateway."""
    name = digest.removeprefix("sha256:")
    found = list((run.state / "images").rglob(f"blobs/sha256/{name[:2]}/{name}/data"))
    if len(found) != 1:
        raise Broken(f"expected {digest} once in the registry's store, found it {len(found)} times")
    return found[0]


def damage_layer(run: Run, name: str, version: str) -> None:
    """Change one byte of an image's layer in the registry's own store."""
    layout = _layout(run, name, version)
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    layer = stored(run, manifest["layers"][-1]["digest"])
    content = bytearray(layer.read_bytes())
    content[len(content) // 2] ^= 1
    layer.write_bytes(content)


def image_of(tenant: str, name: str, digest: str) -> str:
    """Return the full name of an image by digest."""
    return f"{_registry()}/{tenant}/{name}@{digest}"


def credential(run: Run, client: str) -> str:
    """Return the credential file of a client that was registered here."""
    return str(run.folder / f"{client}.json")


def _layout(run: Run, name: str, version: str) -> Path:
    return run.folder / f"image-{name}-{version}"


def _registry() -> str:
    return REGISTRY.removeprefix("https://")


def _register(run: Run, client: str, tenant: str) -> None:
    options = ["--kind", "builder", "--tenant", tenant, "--scope", "images:push", "--scope", "images:pull"]
    run.operator("client", "add", client, *options, "--out", credential(run, client))
