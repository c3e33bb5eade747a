"""Python distributions of this environment: those that are named, what they require, and their files."""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from umec_images.build.errors import DistributionMissing
from umec_images.build.layer import Entry

__all__ = ["distribution_entries", "required", "site_packages"]


def site_packages() -> str:
    """Return where Debian's Python looks for local packages."""
    return f"/usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}/dist-packages"


def required(names: Iterable[str]) -> list[Distribution]:
    """Return the distributions that are named and what they require (without extras), sorted by name.

    A requirement that is not installed was not needed on this platform. Raises DistributionMissing for a named one.
    """
    named = {_canonical(name) for name in names}
    found: dict[str, Distribution] = {}
    waiting = sorted(named)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError as error:
            if name in named:
                raise DistributionMissing(f"the distribution {name} is not installed here") from error
            continue
        waiting.extend(_requirements(found[name]))
    return [found[name] for name in sorted(found)]


def distribution_entries(distributions: Iterable[Distribution], target: str) -> Iterator[Entry]:
    """Yield the files of distributions, without scripts, compiled caches and the record of their installation."""
    for each in distributions:
        for file in each.files or []:
            if ".." in file.parts or "__pycache__" in file.parts or file.name in {"RECORD", "direct_url.json"}:
                continue
            source = Path(str(file.locate()))
            if source.is_file():
                yield Entry(f"{target}/{file.as_posix()}", source)


def _requirements(found: Distribution) -> Iterator[str]:
    for requirement in found.requires or []:
        name, _, marker = requirement.partition(";")
        match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
        if match is not None and "extra" not in marker:
            yield _canonical(match.group())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
