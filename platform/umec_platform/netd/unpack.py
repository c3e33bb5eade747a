"""Layers into a root file system that they cannot leave.

Paths are resolved by the kernel *within* the root (openat2 with RESOLVE_IN_ROOT), links are never followed out of it,
and only directories, files, symbolic and hard links are made: a device or a pipe in a layer refuses the image.
Whiteouts of the OCI image specification are applied before the files of their layer.
"""

import ctypes
import errno
import os
import shutil
import stat
import struct
import tarfile
from pathlib import Path
from typing import IO, Final, cast

from umec_platform.netd.errors import ImageInvalid

__all__ = ["unpack_layer"]

MAX_ENTRIES: Final = 200_000
"""Entries of a layer: a whole Debian desktop has about as many."""

MAX_PATH: Final = 4096
"""Octets of a path (PATH_MAX)."""

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_OPENAT2: Final = 437
"""Number of the system call on every architecture."""
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_COPY_CHUNK: Final = 1024 * 1024


def unpack_layer(tar: IO[bytes], root: Path, *, owners: bool) -> None:
    """Unpack one layer; raises `ImageInvalid`. `owners` keeps the numbers of owners (only as real root)."""
    try:
        with tarfile.open(fileobj=tar, mode="r:") as archive:
            members = _members(archive)
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for _, parts in members:
                    if parts[-1].startswith(_WHITEOUT):
                        _whiteout(descriptor, parts)
                for member, parts in members:
                    if not parts[-1].startswith(_WHITEOUT):
                        _extract(archive, member, parts, descriptor, owners=owners)
            finally:
                os.close(descriptor)
    except (tarfile.TarError, OSError, UnicodeError, ValueError, OverflowError) as error:
        raise ImageInvalid(f"a layer cannot be unpacked: {error}") from error


def _members(archive: tarfile.TarFile) -> list[tuple[tarfile.TarInfo, list[str]]]:
    members: list[tuple[tarfile.TarInfo, list[str]]] = []
    for member in archive:
        if len(members) >= MAX_ENTRIES:
            raise ImageInvalid(f"a layer has more than {MAX_ENTRIES} entries")
        # A sparse file of some octets can fill a disk.
        if member.issparse() or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise ImageInvalid("a layer holds a device, a pipe or something else that is no file")
        parts = _parts(member.name)
        if parts:
            members.append((member, parts))
    return members


def _parts(name: str) -> list[str]:
    """Return the parts of a path within the root; raises `ImageInvalid` if it goes up or is absolute."""
    if name.startswith("/") or len(os.fsencode(name)) > MAX_PATH:
        raise ImageInvalid("a layer holds an absolute, over-long or odd path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ImageInvalid("a layer holds a path with '..'")
    return parts


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str], root: int, *, owners: bool) -> None:
    parent, name = _directory(root, parts[:-1], make=True), parts[-1]
    try:
        if member.isdir():
            _make_directory(parent, name)
        else:
            _remove(parent, name)
            if member.isreg():
                _write(archive, member, parent, name)
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=parent)
            else:
                _hard_link(root, _parts(member.linkname), parent, name)
                return
        if owners:
            if not (0 <= member.uid <= 65535 and 0 <= member.gid <= 65535):
                raise ImageInvalid("a layer holds a file of an owner above 65535")
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            # Without set-uid and set-gid: nothing in a container gains privileges.
            os.chmod(name, member.mode & 0o777, dir_fd=parent)
    finally:
        os.close(parent)


def _make_directory(parent: int, name: str) -> None:
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    os.mkdir(name, 0o755, dir_fd=parent)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
    source = cast("IO[bytes]", archive.extractfile(member))  # a regular file has one
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with source, os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as target:
        shutil.copyfileobj(source, target, _COPY_CHUNK)


def _hard_link(root: int, source: list[str], parent: int, name: str) -> None:
    if not source:
        raise ImageInvalid("a layer holds a hard link to nothing")
    directory = _directory(root, source[:-1], make=False)
    try:
        mode = os.stat(source[-1], dir_fd=directory, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):
            raise ImageInvalid("a layer holds a hard link to something that is no file")
        os.link(source[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(directory)


def _whiteout(root: int, parts: list[str]) -> None:
    name = parts[-1].removeprefix(_WHITEOUT)
    if name in {"", ".", ".."}:
        raise ImageInvalid("a layer holds a whiteout of nothing")
    try:
        parent = _directory(root, parts[:-1], make=False)
    except FileNotFoundError:
        return
    try:
        hidden = os.listdir(parent) if parts[-1] == _OPAQUE else [name]  # noqa: PTH208 - of a descriptor
        for one in hidden:
            _remove(parent, one)
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    """Remove a file or a whole directory; a link is removed, not followed."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _directory(root: int, parts: list[str], *, make: bool) -> int:
    """Open a directory below the root, links resolved as if the root were `/`; missing parts are made if asked."""
    try:
        return _open_in_root(root, "/".join(parts) or ".")
    except FileNotFoundError:
        if not make:
            raise
    parent = _directory(root, parts[:-1], make=True)
    try:
        os.mkdir(parts[-1], 0o755, dir_fd=parent)
    finally:
        os.close(parent)
    return _open_in_root(root, "/".join(parts))


def _open_in_root(root: int, path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(_OPENAT2, root, os.fsencode(path), how, len(how))
    if descriptor < 0:
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise ImageInvalid("this kernel has no openat2 (Linux 5.6): images cannot be unpacked safely")
        raise OSError(number, os.strerror(number), path)
    return descriptor
