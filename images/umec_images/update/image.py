"""The next image of a node: manifest.json, uki.efi and root.img in a folder, judged by the digest of the manifest."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_images.nodeimage.verity import BLOCK
from umec_images.update.errors import DiskUnfit, ImageOther, ManifestOther
from umec_images.update.kernel import Kernel, read_kernel

__all__ = ["Image", "verify_image"]

KERNEL: Final = "uki.efi"
ROOT: Final = "root.img"
MAX_MANIFEST: Final = 1024 * 1024
"""Bytes; it names some dozens of files."""
MAX_KERNEL: Final = 1024 * 1024 * 1024
"""Bytes of a kernel image, which is read into memory: a tenth of what a node has is already much."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _File(_Wire):
    sha256: _Digest
    size: Annotated[int, Field(ge=0)]


class _Verity(_Wire):
    salt: _Digest
    blocks: Annotated[int, Field(ge=1)]
    hash_offset: int


class _Manifest(_Wire):
    name: str
    version: int
    suite: str
    kernel: str
    command_line: str
    root_hash: _Digest
    verity: _Verity
    moment: int
    files: dict[str, _File]


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

    Raises ManifestOther, ImageOther.
    """
    raw = _read(folder / "manifest.json", MAX_MANIFEST)
    found = hashlib.sha256(raw).hexdigest()
    if found != digest:
        raise ManifestOther(f"the manifest has SHA-256 {found}, and {digest} was asked for")
    try:
        manifest = _Manifest.model_validate_json(raw)
        kernel_file, root_file = manifest.files[KERNEL], manifest.files[ROOT]
    except (ValidationError, KeyError) as error:
        raise ManifestOther(f"the manifest is none of `umec nodeimage build`: {error}") from error
    image = _read(folder / KERNEL, MAX_KERNEL)
    _same(folder / KERNEL, hashlib.sha256(image).hexdigest(), kernel_file.sha256)
    root = folder / ROOT
    _same(root, _digest(root), root_file.sha256)
    try:
        kernel = read_kernel(image)
    except DiskUnfit as error:
        raise ImageOther(f"{folder / KERNEL}: {error.detail}") from error
    said = (manifest.name, manifest.version, manifest.root_hash, manifest.verity.blocks)
    signed = (kernel.name, kernel.version, kernel.root_hash.hex(), kernel.blocks)
    if said != signed:
        raise ImageOther(f"the manifest says {said}, and the signed kernel image {signed}")
    size = root.stat().st_size
    if size <= kernel.blocks * BLOCK or size % BLOCK:
        raise ImageOther(f"{root} has {size} bytes, and the signed kernel image opens {kernel.blocks} blocks of it")
    return Image(digest, kernel, image, root, root_file.sha256, size)


def _same(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
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
