"""The real registry: node images by their manifest there and by their own manifest.json."""

from umec_images.nodeimage.artifact.contents import MAX_PAPERS, PAPERS, agreed, parse_artifact, parse_papers
from umec_images.oci.client import RegistryClient
from umec_platform.nodeimages.ports import FoundImage

__all__ = ["RegistryReader"]

KERNEL = "uki.efi"


class RegistryReader:
    """Reads node images of one registry."""

    def __init__(self, registry: RegistryClient) -> None:
        self._registry = registry

    async def read(self, repository: str, digest: str) -> FoundImage:
        """Return what the image says of itself.

        Raises ManifestInvalid, ArtifactInvalid, PapersInvalid, FilesDiffer, and what the registry client raises.
        """
        _, media_type, manifest = await self._registry.manifest(repository, digest)
        layers, version = parse_artifact(manifest, media_type=media_type)
        raw = await self._registry.blob(repository, layers[PAPERS].digest, min(layers[PAPERS].size, MAX_PAPERS))
        image = agreed(layers, version, parse_papers(raw))
        return FoundImage(image.name, image.version, image.layers[PAPERS].digest, image.layers[KERNEL].digest)
