"""What a node image in a registry consists of, by its manifest there and by its own manifest.json.

A layer is one file. Its title is the file's path with `.` for `/`: no title is a path, and only those of `FILES` are
read, each once and with its own media type, and that of `OPTIONAL` if it is there. `disk.img` stays behind: it is
`uki.efi`, `root.img`, `approval`, and room.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from umec_images.nodeimage.artifact.errors import ArtifactInvalid, FilesDiffer
from umec_images.nodeimage.papers import APPROVAL, MAX_PAPERS, PAPERS, Papers, parse_papers
from umec_images.oci.manifest import EMPTY, EMPTY_CONTENT, MANIFEST, Descriptor, encode, parse_manifest
from umec_images.oci.reference import digest_of
from umec_images.oci.version import VERSION

__all__ = [
    "ARTIFACT",
    "FILES",
    "KINDS",
    "MAX_PAPERS",
    "OPTIONAL",
    "PAPERS",
    "TITLE",
    "NodeImage",
    "Papers",
    "agreed",
    "parse_artifact",
    "parse_papers",
    "render_artifact",
    "title_of",
]

_PREFIX: Final = "application/vnd.umec.node-image"
ARTIFACT: Final = f"{_PREFIX}.v1"
"""The artifact's type."""
_DISK: Final = "disk.img"
FILES: Final[Mapping[str, str]] = {
    "uki.efi": "application/vnd.microsoft.portable-executable",
    "root.img": f"{_PREFIX}.root.v1",
    PAPERS: f"{_PREFIX}.manifest.v1+json",
    "sbom.cdx.json": "application/vnd.cyclonedx+json",
    "packages.lock": f"{_PREFIX}.packages.v1+json",
    "sizes.json": f"{_PREFIX}.sizes.v1+json",
    "firmware.json": f"{_PREFIX}.firmware.v1+json",
    "vars.fd": f"{_PREFIX}.variables.v1",
    **{f"efivars/{name}": f"{_PREFIX}.efivar.v1" for name in ("SecureBoot", "PK", "KEK", "db", "dbx")},
}
"""Path -> media type of every file that is a layer."""
OPTIONAL: Final[Mapping[str, str]] = {APPROVAL: f"{_PREFIX}.approval.v1+json"}
"""Those that not every image has."""
KINDS: Final[Mapping[str, str]] = {**FILES, **OPTIONAL}
TITLE: Final = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class NodeImage:
    """An artifact whose layers are exactly those that its manifest.json names; made by `agreed` only."""

    name: str
    version: int
    layers: Mapping[str, Descriptor]
    """By the path of the file."""


def title_of(path: str) -> str:
    """Return the title of the layer that holds the file of this path."""
    return path.replace("/", ".")


def render_artifact(papers: Papers, raw: bytes) -> bytes:
    """Return the manifest for an image whose manifest.json is `raw`: the same image has the same digest.

    Raises FilesDiffer where an image of this kind consists of other files.
    """
    differing = (papers.files.keys() - {_DISK, *OPTIONAL}) ^ (FILES.keys() - {PAPERS})
    if differing:
        raise FilesDiffer(f"{PAPERS} and a node image differ in {_some(differing)}")
    files = {**papers.files, PAPERS: (digest_of(raw), len(raw))}
    layers = [
        Descriptor(kind, *files[path], annotations={TITLE: title_of(path)}).to_json()
        for path, kind in KINDS.items()
        if path in files
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": Descriptor(EMPTY, digest_of(EMPTY_CONTENT), len(EMPTY_CONTENT)).to_json(),
        "layers": layers,
        "annotations": {VERSION: _semantic(papers.version)},
    }
    return encode(document)


def parse_artifact(raw: bytes, *, media_type: str) -> tuple[Mapping[str, Descriptor], str | None]:
    """Return the layers by the paths of their files, and the version that is promoted, if it states one.

    Raises ManifestInvalid; ArtifactInvalid where it is another artifact, or has not exactly the layers of a node image.
    """
    manifest = parse_manifest(raw, media_type=media_type)
    if manifest.artifact_type != ARTIFACT:
        raise ArtifactInvalid(f"this is {manifest.kind[:100]}, no node image ({ARTIFACT})")
    layers = {each.annotations.get(TITLE, ""): each for each in manifest.layers}
    found = Counter((each.annotations.get(TITLE, ""), each.media_type) for each in manifest.layers)
    wanted = {path: kind for path, kind in KINDS.items() if path in FILES or title_of(path) in layers}
    expected = Counter((title_of(path), kind) for path, kind in wanted.items())
    if found != expected:
        wrong = _some(f"{title[:40]} as {kind[:100]}" for title, kind in found - expected)
        missing = _some(title for title, _ in expected - found)
        raise ArtifactInvalid(f"not of a node image: {wrong or 'nothing'}; missing: {missing or 'nothing'}")
    return {path: layers[title_of(path)] for path in wanted}, manifest.annotations.get(VERSION)


def agreed(layers: Mapping[str, Descriptor], version: str | None, papers: Papers) -> NodeImage:
    """Return an image whose manifest in the registry says what its manifest.json says.

    Raises FilesDiffer, or ArtifactInvalid where another version would be promoted than is in the image.
    """
    named = {(path, *each) for path, each in papers.files.items() if path != _DISK}
    carried = {(path, each.digest, each.size) for path, each in layers.items() if path != PAPERS}
    if named != carried:
        raise FilesDiffer(f"{PAPERS} and the image differ in {_some({path for path, _, _ in named ^ carried})}")
    if version != _semantic(papers.version):
        raise ArtifactInvalid(f"the registry has it as version {version}, and its {PAPERS} as {papers.version}")
    return NodeImage(papers.name, papers.version, layers)


def _some(names: Iterable[str]) -> str:
    """Return the first of names that others chose, as a message can bear them."""
    return ", ".join(repr(name[:150]) for name in sorted(names)[:5])


def _semantic(version: int) -> str:
    """Return the counter as the semantic version that promotion and minimums compare."""
    return f"{version}.0.0"
