"""The next image of a node: manifest.json, uki.efi and root.img in a folder, judged by the digest of the manifest."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.nodeimage.artifact.contents import PAPERS, Papers, parse_papers
from umec_images.nodeimage.errors import RootOther
from umec_images.nodeimage.verity import BLOCK, root_hash_of
from umec_images.update.errors import DiskUnfit, ImageOther, ManifestOther
from umec_images.update.kernel import Kernel, read_kernel

__all__ = ["Image", "check_root_file", "verify_image"]

KERNEL: Final = "uki.efi"
ROOT: Final = "root.img"
MAX_KERNEL: Final = 256 * 1024 * 1024
"""Bytes of what is read into memory: a kernel image has some 20 MB."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is what its manifest says, and whose manifest has the digest that was asked for."""

    manifest: str
    """SHA-256, hex."""
    kernel: Kernel
    kernel_image: bytes
    root: Path
    root_sha256: str
    root_size: int


def verify_image(folder: Path, digest: str) -> Image:
    """Verify an image by the SHA-256 (hex) of its manifest; only what goes onto a node's disk is looked at.

    Raises ManifestOther, ImageOther, PapersInvalid.
    """
    raw = _read(folder / PAPERS, MAX_KERNEL)
    found = hashlib.sha256(raw).hexdigest()
    if found != digest:
        raise ManifestOther(f"the manifest has SHA-256 {found}, and {digest} was asked for")
    papers = parse_papers(raw)
    missing = {KERNEL, ROOT} - papers.files.keys()
    if missing:
        raise ImageOther(f"the manifest names no {', '.join(sorted(missing))}")
    image, root = _read(folder / KERNEL, MAX_KERNEL), folder / ROOT
    _same(folder / KERNEL, hashlib.sha256(image).hexdigest(), papers)
    root_sha256 = _digest(root)
    _same(root, root_sha256, papers)
    try:
        kernel = read_kernel(image)
    except DiskUnfit as error:
        raise ImageOther(f"{folder / KERNEL}: {error.detail}") from error
    if (papers.name, papers.version) != (kernel.name, kernel.version):
        raise ImageOther(
            f"the manifest says {papers.name} {papers.version}, and the kernel image {kernel.name} {kernel.version}"
        )
    size = root.stat().st_size
    if size <= kernel.blocks * BLOCK or size % BLOCK:
        raise ImageOther(f"{root} has {size} bytes, and the kernel image opens {kernel.blocks} blocks of it")
    return Image(digest, kernel, image, root, root_sha256, size)


def check_root_file(folder: Path, root: Path) -> None:
    """Check that a file is the root file system which the kernel image of a built folder opens. Raises RootOther."""
    kernel = read_kernel(_read(folder / KERNEL, MAX_KERNEL))
    if not root.is_file() or root_hash_of(root, kernel.salt, kernel.blocks) != kernel.root_hash:
        raise RootOther(
            f"{root} is not the root file system that {folder / KERNEL} opens", advice=f"--root {folder / ROOT}"
        )


def _same(path: Path, found: str, papers: Papers) -> None:
    wanted, _ = papers.files[path.name]
    if f"sha256:{found}" != wanted:
        raise ImageOther(f"{path} has SHA-256 {found}, and its manifest says {wanted}")


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
