"""An OCI image from a folder of content-addressed files: read, checked against one digest, ready to unpack.

Everything is checked on a copy of our own (a file without a name), so that what was checked is what is used.

1. The manifest is the one of the digest. 2. It is an OCI or Docker image manifest with a configuration and layers.
3. The configuration is the one that the manifest names. 4. Each layer is the one that the manifest names, and 5. what
it unpacks to is the one that the configuration names (`diff_ids`).
"""

import gzip
import hashlib
import os
import re
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from umec_core.errors import UmecError
from umec_core.jose import strict_json
from umec_platform.netd.errors import ImageInvalid, LayerDigest

__all__ = ["Image", "ImageConfig", "Layer", "open_layer", "read_image"]

MAX_DOCUMENT: Final = 1024 * 1024
"""Octets of a manifest or a configuration: registries refuse manifests of more than 4 MiB, real ones have some KiB."""

MAX_LAYERS: Final = 128
"""Layers of an image: overlayfs and Docker stop at about this number, too."""

MAX_LAYER: Final = 1024**3
"""Octets of a layer as stored."""

MAX_UNPACKED: Final = 4 * 1024**3
"""Octets of a layer as unpacked: a small node has some 16 GB of disk for everything."""

_CHUNK: Final = 1024 * 1024
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_MANIFESTS: Final = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
_COMPRESSION: Final = {
    "application/vnd.oci.image.layer.v1.tar": False,
    "application/vnd.oci.image.layer.v1.tar+gzip": True,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": True,
}
_USER: Final = re.compile(r"(\d{1,5})(?::(\d{1,5}))?", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\x00]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that the manifest names: `digest` as stored, `diff_id` as unpacked."""

    digest: str
    diff_id: str
    size: int
    compressed: bool


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the image says about its process. `user` is None if the image names none, or root."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose manifest and configuration are those of its digest; only `read_image` makes one."""

    digest: str
    config: ImageConfig
    layers: tuple[Layer, ...]


def read_image(blobs: Path, digest: str) -> Image:
    """Return the image of a digest (steps 1 to 3); raises `LayerDigest` or `ImageInvalid`."""
    manifest = _document(blobs, digest)  # 1
    try:
        if manifest.get("schemaVersion") != 2 or manifest.get("mediaType", min(_MANIFESTS)) not in _MANIFESTS:  # 2
            raise ImageInvalid("not the manifest of one image")
        config = _document(blobs, _digest(manifest["config"]["digest"]))  # 3
        diff_ids = [_digest(diff_id) for diff_id in config["rootfs"]["diff_ids"]]
        descriptors = manifest["layers"]
        if not 0 < len(descriptors) <= MAX_LAYERS or len(diff_ids) != len(descriptors):
            raise ImageInvalid(f"{len(descriptors)} layers and {len(diff_ids)} diff_ids")
        layers = tuple(_layer(one, diff_id) for one, diff_id in zip(descriptors, diff_ids, strict=True))
        return Image(digest, _config(config.get("config") or {}), layers)
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageInvalid(f"a member of the image's documents is missing or of another kind: {error}") from error


def open_layer(blobs: Path, layer: Layer) -> IO[bytes]:
    """Return the checked tar stream of a layer (steps 4 and 5) as a file of our own; raises `LayerDigest`."""
    stored = _copy(blobs, layer.digest, layer.size)  # 4
    if not layer.compressed:
        if layer.diff_id != layer.digest:
            stored.close()
            raise LayerDigest(f"layer {layer.digest} is not the one of the configuration")
        return stored
    with stored:
        return _decompress(stored, layer)  # 5


def _decompress(stored: IO[bytes], layer: Layer) -> IO[bytes]:
    unpacked: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller
    digest, length = hashlib.sha256(), 0
    try:
        with gzip.GzipFile(fileobj=stored) as stream:
            while chunk := stream.read(_CHUNK):
                length += len(chunk)
                if length > MAX_UNPACKED:
                    raise ImageInvalid(f"layer {layer.digest} unpacks to more than {MAX_UNPACKED} octets")
                digest.update(chunk)
                unpacked.write(chunk)
        if f"sha256:{digest.hexdigest()}" != layer.diff_id:
            raise LayerDigest(f"layer {layer.digest} does not unpack to {layer.diff_id}")
    except (OSError, EOFError, zlib.error) as error:
        unpacked.close()
        raise ImageInvalid(f"layer {layer.digest} cannot be decompressed: {error}") from error
    except UmecError:
        unpacked.close()
        raise
    unpacked.seek(0)
    return unpacked


def _copy(blobs: Path, digest: str, most: int) -> IO[bytes]:
    """Copy a file into one of our own while hashing it; raises `LayerDigest` if it is not what its digest says."""
    path = blobs / "sha256" / digest.removeprefix("sha256:")
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller
    hashed, length = hashlib.sha256(), 0
    try:
        # Not following a link, not waiting for a pipe: the folder is not ours.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as source:
            while chunk := source.read(_CHUNK):
                length += len(chunk)
                if length > most:
                    raise LayerDigest(f"{digest} has more than {most} octets")
                hashed.update(chunk)
                copy.write(chunk)
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise LayerDigest(f"the file of {digest} has the digest sha256:{hashed.hexdigest()}")
    except OSError as error:
        copy.close()
        raise LayerDigest(f"the file of {digest} cannot be read: {error.strerror}") from error
    except UmecError:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _document(blobs: Path, digest: str) -> dict[str, Any]:
    with _copy(blobs, digest, MAX_DOCUMENT) as file:
        try:
            return dict(strict_json(file.read()))
        except UmecError as error:
            raise ImageInvalid(f"{digest} is not a JSON object") from error


def _digest(value: object) -> str:
    match = _DIGEST.fullmatch(str(value))
    if match is None:
        raise ImageInvalid("a digest is not sha256 in lower-case hexadecimal")
    return match[0]


def _layer(descriptor: dict[str, Any], diff_id: str) -> Layer:
    compressed, size = _COMPRESSION.get(descriptor["mediaType"]), descriptor["size"]
    if compressed is None:
        raise ImageInvalid("a layer of a kind that we do not unpack (tar and tar+gzip are)")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MAX_LAYER:
        raise ImageInvalid(f"a layer of more than {MAX_LAYER} octets")
    return Layer(_digest(descriptor["digest"]), diff_id, size, compressed)


def _config(config: dict[str, Any]) -> ImageConfig:
    args = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    env = config.get("Env") or []
    cwd = config.get("WorkingDir") or "/"
    if not all(isinstance(text, str) and "\x00" not in text for text in [*args, *env, cwd]) or not cwd.startswith("/"):
        raise ImageInvalid("command, environment or directory of the image are not texts")
    if not all(_VARIABLE.fullmatch(text) for text in env):
        raise ImageInvalid("a variable of the image has no proper name")
    return ImageConfig(tuple(args), tuple(env), cwd, _user(config.get("User") or ""))


def _user(user: object) -> tuple[int, int] | None:
    if user in {"", "root"}:
        return None
    match = _USER.fullmatch(user) if isinstance(user, str) else None
    if match is None:
        raise ImageInvalid("the user of the image is not a number: names are not looked up in files of an image")
    uid, gid = int(match[1]), int(match[2] or match[1])
    if max(uid, gid) > 65535:
        raise ImageInvalid("the user of the image is above 65535")
    return None if uid == 0 else (uid, gid)
