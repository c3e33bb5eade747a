"""Push a node image, and fetch one: by digest only, each file hashed while it is written, and all of them or none.

Fetching: 1. it is admitted; 2. the manifest has the digest that was asked for, and is one of a node image; 3. its
layers are what its manifest.json names; 4. each file has its digest and its size; 5. it is admitted still.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from umec_images.nodeimage.artifact.contents import (
    KINDS,
    MAX_PAPERS,
    PAPERS,
    NodeImage,
    agreed,
    parse_artifact,
    parse_papers,
    render_artifact,
)
from umec_images.nodeimage.artifact.errors import FilesDiffer, PapersInvalid
from umec_images.nodeimage.errors import TargetTaken
from umec_images.oci.client import RegistryClient
from umec_images.oci.manifest import EMPTY_CONTENT, MANIFEST
from umec_images.oci.reference import check_digest

__all__ = ["Heard", "Pushed", "fetch_image", "push_image"]

Heard = Callable[[str, int, int], None]
"""(path of the file, bytes of it so far, bytes of it): how far a transfer is."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image that the registry holds: its digest there, its bytes, and how many of them had to be sent."""

    digest: str
    size: int
    sent: int


async def push_image(
    registry: RegistryClient, folder: Path, repository: str, reference: str | None, heard: Heard
) -> Pushed:
    """Push a built folder under a tag, or under its digest where `reference` is None or that digest.

    What the repository holds already is not sent again. Raises PapersInvalid, FilesDiffer where a file is not the one
    that manifest.json names (before anything is sent), and what the registry client raises.
    """
    raw = await asyncio.to_thread(_read_papers, folder)
    papers = parse_papers(raw)
    manifest = render_artifact(papers, raw)
    paths = {path: size for path, (_, size) in papers.files.items() if path in KINDS}
    for path in paths:
        await asyncio.to_thread(_check_file, folder / path, *papers.files[path])
    sent: dict[str, int] = {}

    def count(path: str, size: int, done: int) -> None:
        sent[path] = done
        heard(path, done, size)

    for path, size in paths.items():
        await registry.push_blob(repository, folder / path, partial(count, path, size))
    await registry.push_blob(repository, raw, partial(count, PAPERS, len(raw)))
    await registry.push_blob(repository, EMPTY_CONTENT)
    # A file that changed meanwhile is missing there, and the gateway takes no manifest that names what is missing.
    digest = await registry.push_manifest(repository, reference, manifest, MANIFEST)
    return Pushed(digest, len(raw) + sum(paths.values()), sum(sent.values()))


async def fetch_image(
    registry: RegistryClient,
    repository: str,
    digest: str,
    out: Path,
    heard: Heard,
    *,
    admitted: Callable[[], Awaitable[object]],
) -> NodeImage:
    """Fetch the image with this digest (`sha256:<hex>`) into a folder, which appears when everything is in it.

    `admitted` raises unless this digest may be used; it is asked again before the folder appears, since somebody may
    have denied the image while it came. Raises ReferenceInvalid, TargetTaken, ManifestInvalid, ArtifactInvalid,
    PapersInvalid, FilesDiffer, DigestMismatch, BlobTooLarge, and what else the registry client raises.
    """
    check_digest(digest)
    _check_free(out)
    await admitted()  # 1
    _, media_type, manifest = await registry.manifest(repository, digest)
    layers, version = parse_artifact(manifest, media_type=media_type)  # 2
    raw = await registry.blob(repository, layers[PAPERS].digest, min(layers[PAPERS].size, MAX_PAPERS))
    image = agreed(layers, version, parse_papers(raw))  # 3
    with _draft(out) as draft:
        for path, layer in image.layers.items():
            place, told = draft / path, partial(_told, heard, path, layer.size)
            await registry.blob_to_file(repository, layer.digest, place, layer.size, told)
            _check_size(place, layer.size)  # 4
        await admitted()  # 5
        draft.rename(out)
    return image


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """Yield an empty folder that can be renamed to `out`; what is not renamed goes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        draft = Path(scratch) / "image"
        (draft / "efivars").mkdir(parents=True)
        yield draft


def _check_free(out: Path) -> None:
    if out.exists():
        raise TargetTaken(f"{out} is there already", advice="give a folder that is not there yet")


def _check_size(path: Path, size: int) -> None:
    if path.stat().st_size != size:
        raise FilesDiffer(f"{path.name} has {path.stat().st_size} bytes, and its manifest says {size}")


def _told(heard: Heard, path: str, size: int, done: int) -> None:
    heard(path, done, size)


def _read_papers(folder: Path) -> bytes:
    try:
        with (folder / PAPERS).open("rb") as file:
            return file.read(MAX_PAPERS + 1)
    except OSError as error:
        raise PapersInvalid(
            f"{folder / PAPERS}: {error.strerror}", advice="umec nodeimage build makes such a folder"
        ) from error


def _check_file(path: Path, digest: str, size: int) -> None:
    try:
        with path.open("rb") as file:
            found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", file.tell()
    except OSError as error:
        raise FilesDiffer(f"{path}: {error.strerror}", advice="umec nodeimage build makes it") from error
    if found != (digest, size):
        raise FilesDiffer(f"{path} is not the file that {PAPERS} names", advice="Build the image anew.")
