"""Python in an image: distributions of this environment, which requirements.lock made, and the node's part of ours."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution
from importlib.resources import files
from pathlib import Path
from typing import Final

from umec_images.build.distributions import distribution_entries, required
from umec_images.build.layer import Entry
from umec_images.nodeimage.lock import LockedPackage
from umec_images.nodeimage.tools import run
from umec_images.nodeimage.tree import place_file

__all__ = ["PLACE", "compile_tree", "locked_distributions", "place_distributions", "place_own"]

PLACE: Final = "/usr/lib/python3/dist-packages"
"""Where Debian's Python finds packages in its isolated mode, too."""
OWN: Final = ("umec_core", "umec_attest")
_LEFT_OUT: Final = {"umec_attest": ("service", "testing")}
_OF_THE_INSTALLER: Final = frozenset({"INSTALLER", "REQUESTED", "uv_cache.json"})


def locked_distributions(names: Iterable[str]) -> list[LockedPackage]:
    """Return the distributions that are named and what they require, each with a digest over its files."""
    return [
        LockedPackage(name=each.name.lower(), version=each.version, sha256=_digest(each)) for each in required(names)
    ]


def place_distributions(root: Path, names: Iterable[str]) -> None:
    """Put distributions into a tree. Raises DistributionMissing."""
    for entry in _entries(required(names)):
        _place(root, entry)


def place_own(root: Path) -> None:
    """Put the node's part of our own packages into a tree."""
    for name in OWN:
        source = Path(str(files(name)))
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if path.is_file() and "__pycache__" not in inside.parts and inside.parts[0] not in _LEFT_OUT.get(name, ()):
                _place(root, Entry(f"{PLACE}/{name}/{inside.as_posix()}", path))


def compile_tree(root: Path) -> None:
    """Compile all Python of a tree, for nothing can be written there later; valid by being there, not by a date."""
    options = ["-q", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash"]
    folders = sorted(str(path) for path in (root / "usr/lib").glob("python3*"))
    run([sys.executable, "-I", "-m", "compileall", *options, *folders])


def _entries(distributions: Iterable[Distribution]) -> Iterator[Entry]:
    for entry in distribution_entries(distributions, PLACE):
        if Path(entry.target).name not in _OF_THE_INSTALLER:
            yield entry


def _place(root: Path, entry: Entry) -> None:
    content = entry.source if isinstance(entry.source, bytes) else entry.source.read_bytes()
    place_file(root, entry.target, content)


def _digest(distribution: Distribution) -> str:
    digest = hashlib.sha256()
    for entry in sorted(_entries([distribution]), key=lambda entry: entry.target):
        content = entry.source if isinstance(entry.source, bytes) else entry.source.read_bytes()
        digest.update(f"{entry.target}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()
