"""Python in an image: distributions of this environment, which requirements.lock made, and the node's part of ours."""

import ast
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution
from importlib.resources import files
from pathlib import Path
from typing import Final

from umec_images.build.distributions import distribution_entries, required
from umec_images.build.layer import Entry
from umec_images.nodeimage.errors import ContentRefused, RecipeInvalid
from umec_images.nodeimage.lock import LockedPackage
from umec_images.nodeimage.tools import run
from umec_images.nodeimage.tree import place_file

__all__ = [
    "PLACE",
    "compile_tree",
    "foreign",
    "imported",
    "locked_distributions",
    "own_modules",
    "place_distributions",
    "place_own",
]

PLACE: Final = "/usr/lib/python3/dist-packages"
"""Where Debian's Python finds packages in its isolated mode, too."""
OWN: Final = ("umec_core", "umec_attest", "umec_images", "umec_platform")
ENTRIES: Final = (
    *("umec_attest.agent.__main__", "umec_attest.agent.boot", "umec_attest.agent.disk"),
    "umec_images.update.keeper",
)
"""What an image starts."""
HOST_ENTRIES: Final = ("umec_platform.netd.__main__", "umec_platform.relay.__main__")
"""What an image of a host starts besides."""
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


def place_own(root: Path, *, host: bool = False) -> None:
    """Put the agent, for a host netd and its relay, and of our packages what they import, into a tree.

    Raises RecipeInvalid if it imports what no distribution of the recipe brought there before.
    """
    place = root / PLACE.removeprefix("/")
    entries = _entry_points(host=host)
    missing = {name for name in foreign(entries) if not (place / name).exists() and not (place / f"{name}.py").exists()}
    if missing:
        raise RecipeInvalid(f"the agent imports {', '.join(sorted(missing))}, and no distribution of the recipe has it")
    for module, source in sorted(own_modules(host=host).items()):
        parts = module.split(".")
        inside = f"{'/'.join(parts)}/__init__.py" if source.name == "__init__.py" else f"{'/'.join(parts)}.py"
        _place(root, Entry(f"{PLACE}/{inside}", source))


def own_modules(*, host: bool) -> Mapping[str, Path]:
    """Return the modules of ours that an image has, and where each one is."""
    return imported(_entry_points(host=host))


def _entry_points(*, host: bool) -> tuple[str, ...]:
    return (*ENTRIES, *(HOST_ENTRIES if host else ()))


def imported(entries: Iterable[str]) -> Mapping[str, Path]:
    """Return the modules of ours that these import, also those that functions import, and where each one is."""
    found: dict[str, Path] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module.partition(".")[0] not in OWN or module in found:
            continue
        waiting.append(module.rpartition(".")[0])
        source = _source(module)
        if source is not None:
            found[module] = source
            waiting.extend(_imports(source.read_bytes()))
    return found


def foreign(entries: Iterable[str]) -> frozenset[str]:
    """Return the packages of others, not of Python itself, that these modules and those they import need."""
    names = {name.partition(".")[0] for source in imported(entries).values() for name in _imports(source.read_bytes())}
    return frozenset(names - sys.stdlib_module_names - set(OWN))


def _source(module: str) -> Path | None:
    """Return the file of a module without importing it; None for what is no module but a name in one."""
    package, *inside = module.split(".")
    place = Path(str(files(package))).joinpath(*inside)
    candidates = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in candidates if path.is_file()), None)


def _imports(source: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def compile_tree(root: Path) -> None:
    """Compile all Python of a tree, for nothing can be written there later; valid by being there, not by a date.

    Raises RecipeInvalid if the tree has another Python than this one, whose bytecode and extensions it could not load.
    """
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    others = sorted({path.name for path in (root / "usr/lib").glob("python3.*")} - {own})
    if others:
        raise RecipeInvalid(f"the image has {', '.join(others)}, and is built by {own}: build with the same one")
    options = ["-q", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash"]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as list_of_files:
        list_of_files.writelines(f"{path}\n" for path in _sources(root))
        list_of_files.flush()
        run([sys.executable, "-I", "-m", "compileall", *options, "-i", list_of_files.name])


def _sources(root: Path) -> Iterator[Path]:
    """Find the modules of a tree that are files: a link could lead to one of this machine, and so could its bytecode.

    Raises ContentRefused.
    """
    for top in sorted((root / "usr/lib").glob("python3*")):
        if top.is_symlink():
            continue
        for folder, _, names in os.walk(top):
            if Path(folder, "__pycache__").is_symlink():
                raise ContentRefused(f"/{Path(folder).relative_to(root)}/__pycache__ is a link")
            paths = (Path(folder, name) for name in sorted(names) if name.endswith(".py"))
            yield from (path for path in paths if not path.is_symlink() and "\n" not in str(path))


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
