"""The next image of a node: manifest.json, uki.efi and root.img in a folder, judged by the digest of the manifest."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from umec_images.nodeimage.disk import APPROVAL_AREA
from umec_images.nodeimage.errors import RootOther
from umec_images.nodeimage.papers import APPROVAL, MAX_PAPERS, PAPERS, Papers, parse_papers
from umec_images.nodeimage.verity import BLOCK, root_hash_of
from umec_images.update.errors import DiskUnfit, ImageOther, ManifestOther
from umec_images.update.kernel import Kernel, read_kernel

__all__ = ["APPROVAL", "KERNEL", "ROOT", "Image", "assemble_image", "check_papers", "check_root_file", "verify_image"]

KERNEL: Final = "uki.efi"
ROOT: Final = "root.img"
MAX_KERNEL: Final = 256 * 1024 * 1024
"""Bytes of what is read into memory: a kernel image has some 20 MB."""
CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose manifest has the digest that was asked for, and whose kernel image is what the manifest says.

    `chunks` gives the root file system in pieces of any size; whoever writes them compares what came with
    `root_sha256` and `root_size`.
    """

    manifest: str
    """SHA-256, hex."""
    kernel: Kernel
    kernel_image: bytes
    root_sha256: str
    root_size: int
    chunks: Callable[[], Iterable[bytes]]
    approval: bytes = b""
    """By the image's owner, if it has one; the agent and the TPM judge it."""


def verify_image(folder: Path, digest: str) -> Image:
    """Verify an image by the SHA-256 (hex) of its manifest; only what goes onto a node's disk is looked at.

    Raises ManifestOther, ImageOther, PapersInvalid.
    """
    papers = check_papers(_read(folder / PAPERS, MAX_PAPERS), digest)
    image, root = _read(folder / KERNEL, MAX_KERNEL), folder / ROOT
    approval = _read(folder / APPROVAL, APPROVAL_AREA) if APPROVAL in papers.files else b""
    made = assemble_image(digest, papers, image, partial(_chunks, root), approval)
    _same(ROOT, _digest(root), papers)
    return made


def check_papers(raw: bytes, digest: str) -> Papers:
    """Return what a manifest.json says that has this SHA-256 (hex). Raises ManifestOther, ImageOther, PapersInvalid."""
    found = hashlib.sha256(raw).hexdigest()
    if found != digest:
        raise ManifestOther(f"the manifest has SHA-256 {found}, and {digest} was asked for")
    papers = parse_papers(raw)
    missing = {KERNEL, ROOT} - papers.files.keys()
    if missing:
        raise ImageOther(f"the manifest names no {', '.join(sorted(missing))}")
    return papers


def assemble_image(
    digest: str, papers: Papers, kernel_image: bytes, chunks: Callable[[], Iterable[bytes]], approval: bytes = b""
) -> Image:
    """Return the image of checked papers. Raises ImageOther where kernel image or approval are not those they name."""
    _same(KERNEL, hashlib.sha256(kernel_image).hexdigest(), papers)
    if APPROVAL in papers.files:
        _same(APPROVAL, hashlib.sha256(approval).hexdigest(), papers)
    try:
        kernel = read_kernel(kernel_image)
    except DiskUnfit as error:
        raise ImageOther(f"{KERNEL}: {error.detail}") from error
    if (papers.name, papers.version) != (kernel.name, kernel.version):
        raise ImageOther(
            f"the manifest says {papers.name} {papers.version}, and the kernel image {kernel.name} {kernel.version}"
        )
    root, size = papers.files[ROOT]
    if size <= kernel.blocks * BLOCK or size % BLOCK:
        raise ImageOther(f"{ROOT} has {size} bytes, and the kernel image opens {kernel.blocks} blocks of it")
    return Image(digest, kernel, kernel_image, root.removeprefix("sha256:"), size, chunks, approval)


def check_root_file(folder: Path, root: Path) -> None:
    """Check that a file is the root file system which the kernel image of a built folder opens. Raises RootOther."""
    kernel = read_kernel(_read(folder / KERNEL, MAX_KERNEL))
    if not root.is_file() or root_hash_of(root, kernel.salt, kernel.blocks) != kernel.root_hash:
        raise RootOther(
            f"{root} is not the root file system that {folder / KERNEL} opens", advice=f"--root {folder / ROOT}"
        )


def _same(name: str, found: str, papers: Papers) -> None:
    wanted, _ = papers.files[name]
    if f"sha256:{found}" != wanted:
        raise ImageOther(f"{name} has SHA-256 {found}, and its manifest says {wanted}")


def _chunks(root: Path) -> Iterator[bytes]:
    with root.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise ImageOther(f"{path} has more than {limit} bytes")
            return file.read()
    except OSError as error:
        raise ImageOther(f"{path}: {error.strerror}") from error


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageOther(f"{path}: {error.strerror}") from error
