"""The root file system as a folder: what packages bring, put in place without running any of their scripts.

Owners, set-uid bits and dates of the packages are not taken along: everything is root's, and dated once, when the
folder becomes an image. What only a person reads (manuals, translations) stays out; copyright files stay in.
"""

import os
import re
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Final

from umec_images.nodeimage.errors import ContentRefused
from umec_images.nodeimage.tools import piped

__all__ = [
    "MERGED",
    "check_plain",
    "place_file",
    "place_link",
    "prepare",
    "read_file",
    "remove_unwanted",
    "unpack",
]

MERGED: Final = ("bin", "sbin", "lib", "lib64")
"""Folders that are links into /usr (Debian's merged /usr)."""
MAX_LINKS: Final = 40
"""Links on the way to one file: as many as Linux follows."""
_EMPTY: Final = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var")
_UNWANTED: Final = re.compile(
    r"(?:var|boot|run)/"
    r"|usr/share/(?:doc/(?!.*/copyright$)|man/|locale/|info/|lintian/|bug/|doc-base/|gcc/|bash-completion/|gdb/|perl5/)"
    r"|usr/lib/python3[.0-9]*/(?:lib2to3|pydoc_data|ensurepip|idlelib|tkinter|turtledemo|unittest/test|test)/"
    r"|etc/(?:init\.d|cron\.[a-z]+|logrotate\.d|default|apt|kernel|apparmor\.d)/"
    r"|usr/share/(?:initramfs-tools|python3/debpython|applications|pixmaps|menu)/"
)


def prepare(root: Path) -> None:
    """Make the empty tree."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in _EMPTY:
        (root / name).mkdir()


def unpack(package: Path, root: Path, *, keep: Iterable[str] = ()) -> None:
    """Put the files of a Debian package into the tree; `keep` names prefixes that are wanted all the same.

    Raises ContentRefused for a path that leads out of the tree, a device or a pipe; ToolFailed.
    """
    kept = tuple(keep)
    try:
        with (
            piped(["dpkg-deb", "--fsys-tarfile", str(package)]) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                path = _inside(member.name)
                if path is not None and (path.startswith(kept) or _UNWANTED.match(path) is None):
                    _put(archive, member, root, path)
    except tarfile.TarError as error:
        raise ContentRefused(f"{package.name} is no Debian package: {error}") from error


def read_file(root: Path, path: str) -> bytes:
    """Return a file of the tree, as the image has it: its links lead within the tree, whatever lies here.

    Raises ContentRefused where there is no file.
    """
    place, left, links = root, path.strip("/").split("/"), 0
    while left:
        part = left.pop(0)
        if part == "..":
            place = root if place == root else place.parent
        elif part not in {"", "."}:
            place /= part
        if place.is_symlink():
            links += 1
            target = place.readlink()
            left = [*target.parts[1 if target.is_absolute() else 0 :], *left]
            place = root if target.is_absolute() else place.parent
        if links > MAX_LINKS:
            raise ContentRefused(f"/{path} leads from link to link without an end")
    if not place.is_file():
        raise ContentRefused(f"/{path} is no file of the image")
    return place.read_bytes()


def check_plain(root: Path, folder: str) -> None:
    """Check that a folder of the tree is one, with no link in it: what works there follows none out of the tree.

    Raises ContentRefused.
    """
    place = _below(root, folder)
    if place.is_symlink() or not place.is_dir():
        raise ContentRefused(f"/{folder} is no folder")
    for parent, folders, files in os.walk(place):
        for name in (*folders, *files):
            found = Path(parent, name)
            if found.is_symlink():
                raise ContentRefused(f"/{found.relative_to(root)} is a link, where there has to be none")


def place_file(root: Path, target: str, content: bytes, *, executable: bool = False) -> None:
    """Write a file of the tree; `target` is absolute in the image. Raises ContentRefused."""
    path = _below(root, _wanted(target))
    _make_way(path, target)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)


def place_link(root: Path, target: str, leads_to: str) -> None:
    """Make a symbolic link of the tree. Raises ContentRefused."""
    path = _below(root, _wanted(target))
    _make_way(path, target)
    path.symlink_to(leads_to)


def remove_unwanted(root: Path) -> None:
    """Remove folders that are empty below /usr and /etc, for packages bring them for what was left out."""
    for top in ("usr", "etc"):
        for folder, _, _ in os.walk(root / top, topdown=False):
            path = Path(folder)
            if path.relative_to(root).parts not in {("etc",), *(("usr", name) for name in MERGED)}:
                try:
                    path.rmdir()
                except OSError:
                    continue


def _put(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, path: str) -> None:
    target = _below(root, path)
    if member.isdir():
        _make_folder(target, path)
        return
    _make_way(target, f"/{path}")
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        other = _below(root, _wanted(member.linkname))
        if other.is_symlink() or not other.is_file():
            raise ContentRefused(f"/{path} is another name of {member.linkname}, which is no file")
        target.hardlink_to(other)
    elif member.isreg():
        content = archive.extractfile(member)
        with target.open("wb") as file:
            _copy(content, file)
        target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
    else:
        raise ContentRefused(f"/{path} is neither a file nor a folder nor a link")


def _make_folder(place: Path, path: str) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ContentRefused(
            f"/{path} is to be a folder, and it or one above it is a file or a link already"
        ) from error


def _make_way(place: Path, target: str) -> None:
    """Remove the file or link that is in a place of the tree, and make the folders above it."""
    _make_folder(place.parent, target.strip("/").rpartition("/")[0])
    if place.is_dir() and not place.is_symlink():
        raise ContentRefused(f"{target} is a folder already")
    place.unlink(missing_ok=True)


def _copy(source: IO[bytes] | None, target: IO[bytes]) -> None:
    while source is not None and (part := source.read(1024 * 1024)):
        target.write(part)


def _below(root: Path, path: str) -> Path:
    """Return where a path of the image is here; what leads through a link could lead out of the tree."""
    place = root
    for part in path.split("/")[:-1]:
        place /= part
        if place.is_symlink():
            raise ContentRefused(f"/{path} leads through the link /{place.relative_to(root)}")
    return root / path


def _wanted(name: str) -> str:
    path = _inside(name)
    if path is None:
        raise ContentRefused(f"{name} is no path of a file")
    return path


def _inside(name: str) -> str | None:
    """Return the path as it is in the merged layout, relative; None for the root itself. Raises ContentRefused."""
    parts = [part for part in PurePosixPath(name.lstrip("/")).parts if part != "."]
    if ".." in parts:
        raise ContentRefused(f"{name} leads out of the image")
    if parts and parts[0] in MERGED:
        parts.insert(0, "usr")
    return "/".join(parts) or None
