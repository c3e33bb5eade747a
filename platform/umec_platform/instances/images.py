"""Images as files in a folder of bounded size, by their digests."""

import asyncio
import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from umec_images.oci.client import RegistryClient
from umec_images.oci.manifest import Descriptor, parse_manifest

__all__ = ["RegistryPuller"]

MAX_CONFIG: Final = 4 * 1024 * 1024
"""Bytes of an image's configuration."""

MAX_LAYER: Final = 4 * 1024**3
"""Bytes of one layer: a node has an eMMC, not a data centre."""

MAX_FOLDER: Final = 16 * 1024**3
"""Bytes of all images together, apart from those that should run."""

RECENT: Final = 15 * 60.0
"""Seconds for which a file that was used stays whatever happens: an instance that is being started needs it."""

log = structlog.get_logger("umec.images")


class RegistryPuller:
    """Keeps images in a content-addressed folder, `sha256/<hex>`; files are checked when they come and before use."""

    def __init__(self, registry: RegistryClient, folder: Path, *, max_folder: int = MAX_FOLDER) -> None:
        self._registry = registry
        self._folder = folder
        self._max_folder = max_folder
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pull(self, repository: str, digest: str) -> Path:
        """Return the folder with manifest, configuration and layers of an image; raises why the registry does not."""
        blobs = self._folder / "sha256"
        await asyncio.to_thread(blobs.mkdir, mode=0o755, parents=True, exist_ok=True)
        _, media_type, content = await self._registry.manifest(repository, digest)
        manifest = parse_manifest(content, media_type=media_type)
        async with self._locks[digest]:
            await asyncio.to_thread(_write, blobs / _hex(digest), content)
        await self._fetch(repository, manifest.config, blobs, MAX_CONFIG)
        for layer in manifest.layers:
            await self._fetch(repository, layer, blobs, MAX_LAYER)
        return self._folder

    async def keep(self, digests: Collection[str]) -> None:
        """Keep these images; of the others forget what was used longest ago, until the folder is within its bound."""
        await asyncio.to_thread(_evict, self._folder / "sha256", set(digests), self._max_folder)

    async def _fetch(self, repository: str, blob: Descriptor, blobs: Path, limit: int) -> None:
        path = blobs / _hex(blob.digest)
        async with self._locks[blob.digest]:
            if not await asyncio.to_thread(_holds, path, blob.digest):
                await self._registry.blob_to_file(repository, blob.digest, path, min(limit, blob.size))


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    draft.replace(path)


def _holds(path: Path, digest: str) -> bool:
    try:
        with path.open("rb") as file:
            held = hashlib.file_digest(file, "sha256").hexdigest() == _hex(digest)
    except FileNotFoundError:
        return False
    if held:
        os.utime(path)
    return held


def _evict(blobs: Path, images: set[str], limit: int) -> None:
    if not blobs.exists():
        return
    found = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in blobs.iterdir())
    total, needed = sum(size for _, size, _ in found), _needed(blobs, images)
    for used, size, file in found:
        if total <= limit or found[-1][0] - used <= RECENT:
            break
        if file.name not in needed:
            file.unlink(missing_ok=True)
            total -= size
    if total > limit:
        log.warning("images that should run need more room than is meant for images", octets=total, limit=limit)


def _needed(blobs: Path, images: set[str]) -> set[str]:
    """Return the names of the files of these images, as far as their manifests are here."""
    names = {_hex(digest) for digest in images}
    for manifest in [blobs / name for name in names]:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            said = json.loads(manifest.read_bytes())
            names |= {_hex(one["digest"]) for one in (said["config"], *said["layers"])}
    return names
