"""The OCI image layout: a folder of content-addressed blobs with an index on top (image-spec 1.1, image-layout)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.oci.errors import DigestMismatch, LayoutInvalid
from umec_images.oci.manifest import INDEX, MANIFEST, MAX_MANIFEST, Descriptor, Manifest, encode, parse_index
from umec_images.oci.manifest import parse_manifest as _parse_manifest
from umec_images.oci.reference import check_digest, digest_of

__all__ = ["REF_NAME", "Layout", "LayoutImage"]

REF_NAME: Final = "org.opencontainers.image.ref.name"
_MARK: Final = encode({"imageLayoutVersion": "1.0.0"})


@dataclass(frozen=True, slots=True)
class LayoutImage:
    """An image of a layout whose manifest had the digest that the index states."""

    digest: str
    content: bytes
    manifest: Manifest
    tag: str | None


@dataclass(frozen=True, slots=True)
class Layout:
    """An image layout at a path."""

    path: Path

    def blob(self, digest: str) -> Path:
        """Return the file of a blob, whether it exists or not."""
        return self.path / "blobs" / "sha256" / check_digest(digest).removeprefix("sha256:")

    def prepare(self) -> None:
        """Make the empty folder structure."""
        (self.path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (self.path / "oci-layout").write_bytes(_MARK)

    def put(self, content: bytes) -> str:
        """Keep a blob; return its digest."""
        digest = digest_of(content)
        self.blob(digest).write_bytes(content)
        return digest

    def put_image(self, content: bytes, tag: str) -> str:
        """Keep a manifest as the one image of this layout; return its digest."""
        digest = self.put(content)
        entry = Descriptor(MANIFEST, digest, len(content), annotations={REF_NAME: tag})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry.to_json()]}
        (self.path / "index.json").write_bytes(encode(index))
        return digest

    def image(self) -> LayoutImage:
        """Return the one image of the layout. Raises LayoutInvalid, ManifestInvalid or DigestMismatch."""
        index = parse_index(self._read(self.path / "index.json"))
        if len(index.manifests) != 1:
            raise LayoutInvalid(f"the layout holds {len(index.manifests)} images; exactly one can be pushed")
        entry = index.manifests[0]
        content = self._read(self.blob(entry.digest))
        if digest_of(content) != entry.digest:
            raise DigestMismatch(f"the manifest {entry.digest} has the digest {digest_of(content)}")
        manifest = _parse_manifest(content, media_type=entry.media_type)
        return LayoutImage(entry.digest, content, manifest, entry.annotations.get(REF_NAME))

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_MANIFEST + 1)
        except OSError as error:
            raise LayoutInvalid(f"{path.name} cannot be read: {error.strerror}") from error
        if len(content) > MAX_MANIFEST:
            raise LayoutInvalid(f"{path.name} has more than {MAX_MANIFEST} bytes")
        return content
