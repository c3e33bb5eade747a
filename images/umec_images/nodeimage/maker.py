"""What of the machine that builds goes into an image, or makes its bytes: so that two builds that differ say why."""

import hashlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

from umec_images.nodeimage import python
from umec_images.nodeimage.errors import PackageChanged, PackageNotLocked, ToolMissing
from umec_images.nodeimage.lock import Lock, LockedPackage
from umec_images.nodeimage.tools import PACKAGES, PATH, require_file, run

__all__ = ["STUB", "check_maker", "made_with"]

STUB: Final = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
OWN: Final = "umec"
INSIDE: Final = frozenset({OWN, PACKAGES[STUB]})
"""What is in every image: with another one the image is another. All others only make its bytes."""
TOOLS: Final = ("mksquashfs", "depmod")


def made_with(*, host: bool) -> list[LockedPackage]:
    """Return our modules and guest programs, the stub, and the tools, each with its version and digest, by name.

    `host`: the image has what runs applications, too. Raises ToolMissing, ToolFailed.
    """
    found = [
        LockedPackage(name=OWN, version=version(OWN), sha256=_own(host=host)),
        LockedPackage(name="python", version=platform.python_version(), sha256=_sha256(Path(sys.executable).resolve())),
        _packaged(PACKAGES[STUB], require_file(STUB)),
        *(_packaged(PACKAGES[name], _program(name)) for name in TOOLS),
    ]
    return sorted(found, key=lambda each: each.name)


def check_maker(present: Iterable[LockedPackage], lock: Lock, say: Callable[[str], None]) -> None:
    """Hold this machine against a lock. Raises PackageNotLocked, PackageChanged for what is in the image.

    `say` hears of tools that are others: they may make the same bytes.
    """
    locked: Mapping[str, LockedPackage] = {each.name: each for each in lock.maker}
    for each in present:
        if each.name not in locked:
            raise PackageNotLocked(f"the lock does not have {each.name} of the machine that builds")
        known = locked[each.name]
        if each == known:
            continue
        told = f"{each.name} {each.version} has SHA-256 {each.sha256}, the lock has {known.version} with {known.sha256}"
        if each.name in INSIDE:
            raise PackageChanged(told)
        say(f"not as in the lock: {told}")


def _own(*, host: bool) -> str:
    """Return a digest over our modules in an image, and over the programs that start in it."""
    guest = files("umec_images.nodeimage").joinpath("guest")
    content = {f"guest/{each.name}": each.read_bytes() for each in guest.iterdir() if each.is_file()}
    content |= {module: source.read_bytes() for module, source in python.own_modules(host=host).items()}
    digest = hashlib.sha256()
    for name, data in sorted(content.items()):
        digest.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return digest.hexdigest()


def _packaged(package: str, file: Path) -> LockedPackage:
    said = run(["dpkg-query", "-W", "-f", "${Version}", package])
    return LockedPackage(name=package, version=said, sha256=_sha256(file))


def _program(name: str) -> Path:
    found = shutil.which(name, path=PATH)
    if found is None:
        raise ToolMissing(f"{name} is not here", advice=f"apt-get install {PACKAGES[name]}")
    return Path(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
