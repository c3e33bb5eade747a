"""An image from its description: layers, config and manifest in an OCI layout, and a report of what is in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from umec_images.build.distributions import distribution_entries, required, site_packages
from umec_images.build.errors import SpecInvalid
from umec_images.build.layer import Entry, Layer, folder_entries, write_layer
from umec_images.build.packages import architecture, closure, installed, merged_links, package_entries
from umec_images.build.spec import ImageSpec
from umec_images.oci.layout import Layout
from umec_images.oci.manifest import MANIFEST, Descriptor, encode
from umec_images.oci.reference import check_tag
from umec_images.oci.version import VERSION, parse_version

__all__ = ["BuildReport", "build_image"]

CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
CREATED: Final = "1970-01-01T00:00:00Z"
"""The time of building is the provenance's to state: in the image it would change the digest."""
PATH: Final = "PATH=/usr/local/bin:/usr/bin:/bin"

_ACCOUNTS: Final = (
    Entry("/etc/passwd", b"root:x:0:0::/:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n"),
    Entry("/etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
    Entry("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n"),
)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built."""

    digest: str
    tag: str
    version: str | None
    layers: tuple[Layer, ...]
    packages: dict[str, str]
    """Versions of the Debian packages inside."""
    distributions: dict[str, str]
    """Versions of the Python distributions inside."""

    @property
    def size(self) -> int:
        """Bytes of all layers as they travel."""
        return sum(layer.size for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the report as the CLI prints it, and the build writes beside the layout."""
        layers = [
            {
                "name": each.name,
                "digest": each.digest,
                "size": each.size,
                "unpacked": each.unpacked,
                "files": each.files,
            }
            for each in self.layers
        ]
        return {
            "digest": self.digest,
            "tag": self.tag,
            "version": self.version,
            "size": self.size,
            "layers": layers,
            "packages": self.packages,
            "distributions": self.distributions,
        }


def build_image(spec: ImageSpec, base: Path, out: Path, *, tag: str, version: str | None = None) -> BuildReport:
    """Build the image that `spec` describes (its paths start at `base`) into the OCI layout `out`.

    `version` stands in place of the description's. Raises VersionInvalid and the errors of `umec_images.build.errors`.
    """
    layout = Layout(out)
    check_tag(tag)
    stated = spec.version if version is None else parse_version(version).text
    layout.prepare()
    packages = closure(spec.packages, installed(), spec.exclude) if spec.packages else []
    distributions = required(spec.distributions)
    blobs = out / "blobs" / "sha256"
    layers = []
    if packages:
        layers.append(write_layer("packages", _system(package_entries(packages)), blobs))
    if distributions:
        entries = distribution_entries(distributions, site_packages())
        layers.append(write_layer("distributions", entries, blobs))
    layers.extend(_folders(spec, base, blobs))
    if not layers:
        raise SpecInvalid("the image is empty: it names no packages, distributions or folders")
    digest = layout.put_image(_manifest(layout, spec, layers, stated), tag)
    return BuildReport(
        digest=digest,
        tag=tag,
        version=stated,
        layers=tuple(layers),
        packages={each.name: each.version for each in packages},
        distributions={each.name: each.version for each in distributions},
    )


def _system(entries: Iterator[Entry]) -> Iterator[Entry]:
    yield from _ACCOUNTS
    yield from merged_links()
    yield from entries


def _folders(spec: ImageSpec, base: Path, blobs: Path) -> Iterator[Layer]:
    for number, folder in enumerate(spec.folders):
        source = (base / folder.source).resolve()
        if not source.is_dir():
            raise SpecInvalid(f"{folder.source} is no folder")
        yield write_layer(f"folder-{number}", folder_entries(source, folder.target), blobs)


def _manifest(layout: Layout, spec: ImageSpec, layers: list[Layer], version: str | None) -> bytes:
    content = _config(spec, layers)
    config = Descriptor(CONFIG, layout.put(content), len(content))
    described = [Descriptor(LAYER, layer.digest, layer.size).to_json() for layer in layers]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.to_json(), "layers": described}
    return encode(manifest if version is None else manifest | {"annotations": {VERSION: version}})


def _config(spec: ImageSpec, layers: list[Layer]) -> bytes:
    run = {
        "Entrypoint": spec.entrypoint,
        "Cmd": spec.cmd,
        "Env": [PATH, *(f"{name}={value}" for name, value in sorted(spec.env.items()))],
        "User": spec.user,
        "WorkingDir": spec.workdir,
        "Labels": spec.labels,
    }
    return encode(
        {
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": CREATED, "created_by": f"umec image build: {layer.name}"} for layer in layers],
        }
    )
