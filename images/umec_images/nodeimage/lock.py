"""`packages.lock`: exactly which packages an image has been made of, Debian's and Python's, each by its digest.

Beside them what of the machine that builds is in it, or made it (`umec_images.nodeimage.maker`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_images.nodeimage.errors import LockInvalid, PackageChanged, PackageNotLocked

__all__ = ["Lock", "LockedPackage", "check_python", "load_lock", "locked_packages", "parse_lock", "render_lock"]

MAX_LOCK: Final = 4 * 1024 * 1024
"""Bytes; a system of 500 packages has 100 KB."""


class LockedPackage(BaseModel):
    """A package: the digest is that of the `.deb`, of all files of a Python distribution, or of a tool's program."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]{0,127}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+:~_!-]{1,128}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Lock(BaseModel):
    """All packages of an image, sorted by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    debian: list[LockedPackage]
    python: list[LockedPackage]
    maker: list[LockedPackage] = Field(default_factory=list)


def parse_lock(raw: bytes) -> Lock:
    """Read a lock. Raises LockInvalid, also where a name is there twice."""
    try:
        lock = Lock.model_validate_json(raw)
    except ValidationError as error:
        faults = (f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors())
        raise LockInvalid("; ".join(faults)) from error
    for packages in (lock.debian, lock.python, lock.maker):
        if len({each.name for each in packages}) != len(packages):
            raise LockInvalid("a package is there more than once")
    return lock


def load_lock(path: Path) -> Lock:
    """Read a lock from a file. Raises LockInvalid."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_LOCK + 1)
    except OSError as error:
        raise LockInvalid(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_LOCK:
        raise LockInvalid(f"{path} has more than {MAX_LOCK} bytes")
    try:
        return parse_lock(raw)
    except LockInvalid as error:
        raise LockInvalid(f"{path}: {error.detail}") from error


def render_lock(lock: Lock) -> bytes:
    """Return the lock as it is written: one line a package, so that a difference can be read."""
    parts = [
        f'"{kind}": [\n' + ",\n".join(each.model_dump_json() for each in packages) + "\n]"
        for kind, packages in (("debian", lock.debian), ("python", lock.python), ("maker", lock.maker))
    ]
    return ("{" + ",\n".join(parts) + "}\n").encode()


def locked_packages(wanted: Iterable[str], lock: Lock) -> list[LockedPackage]:
    """Return the Debian packages of a lock, which has to name all that a recipe wants. Raises PackageNotLocked."""
    missing = set(wanted) - {each.name for each in lock.debian}
    if missing:
        raise PackageNotLocked(_not_locked(missing), advice="build once without --locked, and look at the new lock")
    return lock.debian


def check_python(present: Iterable[LockedPackage], lock: Lock) -> None:
    """Hold the distributions of this environment against a lock. Raises PackageNotLocked, PackageChanged."""
    locked = {each.name: each for each in lock.python}
    for each in present:
        if each.name not in locked:
            raise PackageNotLocked(_not_locked({each.name}))
        if each != locked[each.name]:
            raise PackageChanged(
                f"{each.name} {each.version} has SHA-256 {each.sha256}, "
                f"the lock has {locked[each.name].version} with {locked[each.name].sha256}"
            )


def _not_locked(names: Iterable[str]) -> str:
    return f"the lock does not have {', '.join(sorted(names))}"
