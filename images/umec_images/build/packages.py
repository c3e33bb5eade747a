"""Debian packages of this machine: which ones an image needs, and which files they own.

Dependencies are resolved among what is installed: the first alternative that is there, by name or by Provides.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.build.errors import PackageFileMissing, PackageMissing
from umec_images.build.layer import Entry

__all__ = [
    "INSTALL_TIME",
    "Package",
    "architecture",
    "closure",
    "installed",
    "merged_links",
    "package_entries",
    "parse_status",
]

INSTALL_TIME: Final = frozenset(
    {"debconf", "dpkg", "init-system-helpers", "install-info", "media-types", "perl-base", "tar", "tzdata", "ucf"}
)
"""Packages that others depend on for their installation scripts or as data that an edge image brings itself."""

_MERGED: Final = re.compile(r"^/(bin|sbin|lib|lib32|lib64|libx32)(?=/|$)")
_UNWANTED: Final = re.compile(r"^/usr/share/(?:doc/(?!.*/copyright$)|man/|locale/|info/|lintian/|bug/|doc-base/|gcc/)")
_FIELDS: Final = ("Package", "Version", "Architecture", "db:Status-Status", "Provides", "Pre-Depends", "Depends")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package."""

    name: str
    version: str
    architecture: str
    provides: tuple[str, ...]
    depends: tuple[tuple[str, ...], ...]
    """Each must be met by one of its alternatives."""


def installed() -> Mapping[str, Package]:
    """Return the packages that dpkg says are installed."""
    fields = "\\t".join(f"${{{field}}}" for field in _FIELDS)
    return parse_status(_run(["dpkg-query", "-W", "-f", f"{fields}\\n"]))


def architecture() -> str:
    """Return Debian's name of this machine's architecture (amd64, arm64), which is also OCI's."""
    return _run(["dpkg", "--print-architecture"]).strip()


def parse_status(text: str) -> Mapping[str, Package]:
    """Read what `dpkg-query -W` prints; lines of packages that are not (wholly) installed are left out."""
    packages = {}
    for line in text.splitlines():
        values = line.split("\t")
        if len(values) != len(_FIELDS) or values[3] != "installed":
            continue
        name, version, arch, _, provides, before, depends = values
        groups = (*_groups(before), *_groups(depends))
        given = tuple(alternative for group in _groups(provides) for alternative in group)
        packages[name] = Package(name, version, arch, given, groups)
    return packages


def closure(wanted: Iterable[str], known: Mapping[str, Package], exclude: Iterable[str] = ()) -> list[Package]:
    """Return `wanted` and everything that it depends on, sorted by name. Raises PackageMissing."""
    left_out = INSTALL_TIME.union(exclude).difference(wanted)
    providers = _providers(known.values())
    found: dict[str, Package] = {}
    waiting: list[tuple[str, ...]] = [(name,) for name in wanted]
    while waiting:
        group = waiting.pop()
        if not left_out.isdisjoint(group):
            continue
        package = _first(group, known, providers)
        if package.name not in found and package.name not in left_out:
            found[package.name] = package
            waiting.extend(package.depends)
    return [found[name] for name in sorted(found)]


def package_entries(packages: Sequence[Package]) -> Iterator[Entry]:
    """Yield the files of packages, in the merged /usr layout. Raises PackageFileMissing."""
    for package in packages:
        for line in _files(package):
            if _UNWANTED.match(line) or line == "/.":
                continue
            source = Path(line)
            if not source.is_symlink() and not source.exists():
                raise PackageFileMissing(f"{package.name} installed {line}, and it is gone")
            if source.is_dir() and not source.is_symlink():
                continue  # parents are made as they are needed
            target = _MERGED.sub(r"/usr/\1", line)
            if not (source.is_symlink() and _MERGED.fullmatch(line)):
                yield Entry(target, source)


def merged_links(root: Path = Path("/")) -> Iterator[Entry]:
    """Yield the links from /bin, /lib … into /usr that this machine has."""
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if (root / name).is_symlink():
            yield Entry(f"/{name}", root / name)


def _files(package: Package) -> list[str]:
    return sorted(_run(["dpkg-query", "-L", f"{package.name}:{_architecture(package)}"]).splitlines())


def _architecture(package: Package) -> str:
    return architecture() if package.architecture == "all" else package.architecture


def _groups(field: str) -> tuple[tuple[str, ...], ...]:
    """Split `a (>= 1) | b:any, c` into (("a", "b"), ("c",))."""
    groups = (tuple(_bare(each) for each in group.split("|")) for group in field.split(",") if group.strip())
    return tuple(groups)


def _bare(dependency: str) -> str:
    return re.split(r"[\s(:\[<]", dependency.strip(), maxsplit=1)[0]


def _providers(packages: Iterable[Package]) -> dict[str, str]:
    return {virtual: package.name for package in sorted(packages, key=_by_name) for virtual in package.provides}


def _by_name(package: Package) -> str:
    return package.name


def _first(group: tuple[str, ...], known: Mapping[str, Package], providers: Mapping[str, str]) -> Package:
    for name in group:
        package = known.get(name) or known.get(providers.get(name, ""))
        if package is not None:
            return package
    raise PackageMissing(
        f"none of {' | '.join(group)} is installed here", advice="Install it with apt, or name it under `exclude`."
    )


def _run(arguments: list[str]) -> str:
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(arguments, capture_output=True, check=False, text=True, timeout=60, env=environment)
    if done.returncode != 0:
        raise PackageMissing(f"{arguments[0]} failed: {done.stderr.strip()[:200]}")
    return done.stdout
