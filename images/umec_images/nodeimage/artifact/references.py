"""Reference sets of a node image, attached to its digest. They prove nothing here: the verifier knows their signers."""

from typing import Final

from umec_images.errors import AttachmentsTooMany
from umec_images.oci.client import RegistryClient
from umec_images.oci.errors import ManifestInvalid
from umec_images.oci.manifest import parse_manifest

__all__ = ["REFERENCE_SET", "fetch_references"]

REFERENCE_SET: Final = "application/vnd.umec.reference-set.v1+json"
"""Artifact type of a signed reference set: a DSSE envelope, which is no summary of a promotion."""
MAX_SETS: Final = 16
"""Sets of one image; each new version is one more, and old ones expire."""
MAX_SET: Final = 16 * 1024 * 1024
"""Bytes of a set, as of any attachment; a verifier takes 3 MB."""


async def fetch_references(registry: RegistryClient, repository: str, digest: str) -> list[bytes]:
    """Return the sets that are attached to `digest` (`sha256:<hex>`), in the registry's order.

    Raises AttachmentsTooMany, ManifestInvalid, DigestMismatch, BlobTooLarge, and what else the registry client raises.
    """
    found = await registry.referrers(repository, digest, REFERENCE_SET)
    if len(found) > MAX_SETS:
        raise AttachmentsTooMany(f"{len(found)} reference sets are attached, at most {MAX_SETS} are read")
    return [await _set(registry, repository, digest, each.digest) for each in found]


async def _set(registry: RegistryClient, repository: str, subject: str, digest: str) -> bytes:
    _, media_type, raw = await registry.manifest(repository, digest)
    manifest = parse_manifest(raw, media_type=media_type)
    if manifest.subject is None or manifest.subject.digest != subject or len(manifest.layers) != 1:
        raise ManifestInvalid(f"{digest} is listed as a reference set of {subject}, and is none")
    return await registry.blob(repository, manifest.layers[0].digest, min(manifest.layers[0].size, MAX_SET))
