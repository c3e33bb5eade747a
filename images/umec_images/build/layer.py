"""A layer: a gzipped tar whose bytes depend on nothing but the files' names, contents, links and execute bits.

Sorted by name, owned by root, dated 1970, modes reduced to 0644, 0755 and (for folders) 0755; no set-uid, no devices.
"""

import gzip
import hashlib
import io
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from umec_images.build.errors import FileKindRefused

__all__ = ["Entry", "Layer", "folder_entries", "write_layer"]

LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the layer: its absolute path in the image, and where its content is (a path here, or bytes)."""

    target: str
    source: Path | bytes


@dataclass(frozen=True, slots=True)
class Layer:
    """A written layer."""

    name: str
    digest: str
    """Of the gzipped tar."""
    diff_id: str
    """Of the tar."""
    size: int
    unpacked: int
    files: int


class _Tee:
    """Writes on, hashes and counts."""

    def __init__(self, sink: IO[bytes] | gzip.GzipFile) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._sink.write(data)

    def flush(self) -> None:
        self._sink.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def folder_entries(source: Path, target: str) -> Iterable[Entry]:
    """Return the files below `source`, as they will be below `target`; caches of Python are left out."""
    for path in sorted(source.rglob("*")):
        if "__pycache__" not in path.parts and (path.is_symlink() or not path.is_dir()):
            yield Entry(f"{target.rstrip('/')}/{path.relative_to(source).as_posix()}", path)


def write_layer(name: str, entries: Iterable[Entry], blobs: Path) -> Layer:
    """Write a layer into the folder `blobs` under its digest. Raises FileKindRefused."""
    by_target = {_inside(entry.target): entry.source for entry in entries}
    draft = blobs / f".{name}.draft"
    with draft.open("wb") as file:
        packed = _Tee(file)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=packed, mtime=0) as zipped:
            plain = _Tee(zipped)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
                for folder in _folders(by_target):
                    tar.addfile(_info(folder, tarfile.DIRTYPE, 0o755))
                for target in sorted(by_target):
                    _add(tar, target, by_target[target])
    draft.replace(blobs / packed.digest.removeprefix("sha256:"))
    return Layer(name, packed.digest, plain.digest, packed.size, plain.size, len(by_target))


def _inside(target: str) -> str:
    parts = PurePosixPath(target.lstrip("/")).parts
    if not parts or ".." in parts:
        raise FileKindRefused(f"{target} is not a path inside an image")
    return "/".join(parts)


def _folders(targets: Iterable[str]) -> list[str]:
    parents = {str(parent) for target in targets for parent in PurePosixPath(target).parents}
    return sorted(parents - {"."} - set(targets))


def _add(tar: tarfile.TarFile, target: str, source: Path | bytes) -> None:
    if isinstance(source, bytes):
        tar.addfile(_info(target, tarfile.REGTYPE, 0o644, size=len(source)), _reader(source))
        return
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode):
        link = _info(target, tarfile.SYMTYPE, 0o777)
        link.linkname = str(source.readlink())
        tar.addfile(link)
    elif stat.S_ISREG(mode):
        with source.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            tar.addfile(_info(target, tarfile.REGTYPE, 0o755 if mode & 0o100 else 0o644, size=size), file)
    else:
        raise FileKindRefused(f"{source} is neither a file nor a link")


def _info(name: str, kind: bytes, mode: int, *, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, 0
    return info


def _reader(content: bytes) -> IO[bytes]:
    return io.BytesIO(content)
