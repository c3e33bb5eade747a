"""Debian packages from the sources into a folder by their digest: what is there already is never fetched again."""

import fcntl
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from umec_images.nodeimage.catalog import Offer, parse_offers
from umec_images.nodeimage.errors import PackageChanged, PackageUnknown, ToolFailed
from umec_images.nodeimage.lock import LockedPackage
from umec_images.nodeimage.tools import run

__all__ = ["Sources"]

TRUST: Final = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
"""Whose signature lists need."""
ARCHIVES: Final = (
    ("https://deb.debian.org/debian", ""),
    ("https://deb.debian.org/debian", "-updates"),
    ("https://deb.debian.org/debian-security", "-security"),
)
"""Where packages come from without a mirror, and what follows the name of the suite there."""
_COMPONENT: Final = "main"
_STRICT: Final = {
    "Acquire::AllowInsecureRepositories": "false",
    "Acquire::AllowWeakRepositories": "false",
    "Acquire::AllowDowngradeToInsecureRepositories": "false",
    "Acquire::Check-Valid-Until": "true",
    "APT::Get::AllowUnauthenticated": "false",
}
"""Whatever the settings of this machine say, from which apt takes its proxies."""


class Sources:
    """Debian's archives of one suite, or one mirror, as apt sees them on a machine that has no packages yet.

    The sources of this machine do not count: who builds elsewhere gets the same packages. With a mirror, its suite is
    the only source, so it has to hold the security updates as well. `cache` is a folder that may be kept for ever; its
    packages have their SHA-256 as their name.
    """

    def __init__(self, cache: Path, suite: str, mirror: str | None) -> None:
        self._packages = cache.absolute() / "debs"
        self._apt = cache.absolute() / "apt"  # apt takes a relative folder for one below its own
        self._suite = suite
        self._mirror = mirror

    def offers(self) -> Mapping[str, Offer]:
        """Renew the lists and return what they offer. Raises ToolMissing, ToolFailed."""
        with self._alone():
            run(["apt-get", *self._options(), "update", "--quiet"])
            return parse_offers(run(["apt-cache", *self._options(), "dumpavail"]))

    def fetch(self, wanted: Iterable[LockedPackage]) -> list[Path]:
        """Return the files of these packages, in their order. Raises PackageUnknown, PackageChanged, ToolFailed."""
        packages = list(wanted)
        with self._alone():
            missing = [each for each in packages if not self._place(each).exists()]
            if missing:
                self._download(missing)
        return [self._checked(each) for each in packages]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other build change lists and packages of this cache meanwhile."""
        self._apt.mkdir(parents=True, exist_ok=True)
        with (self._apt / "alone").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _place(self, package: LockedPackage) -> Path:
        return self._packages / f"{package.sha256}.deb"

    def _checked(self, package: LockedPackage) -> Path:
        """What lies in the cache is hashed each time: a file that was damaged there goes into no image."""
        place = self._place(package)
        with place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != package.sha256:
            place.unlink()
            raise PackageChanged(f"{package.name} {package.version} has SHA-256 {found}, not {package.sha256}")
        return place

    def _download(self, packages: Sequence[LockedPackage]) -> None:
        arriving = self._packages / "arriving"
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir(parents=True)
        names = [f"{each.name}={each.version}" for each in packages]
        try:
            run(["apt-get", *self._options(), "download", "--quiet", *names], cwd=arriving)
        except ToolFailed as error:
            raise PackageUnknown(
                f"the sources do not give all of {', '.join(names)}: {error.detail}",
                advice="an old lock needs a mirror that keeps old packages: --mirror",
            ) from error
        for file in sorted(arriving.glob("*.deb")):
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            file.replace(self._packages / f"{digest}.deb")
        arriving.rmdir()
        for each in packages:
            if not self._place(each).exists():
                raise PackageChanged(f"{each.name} {each.version} came with another SHA-256 than {each.sha256}")

    def _options(self) -> list[str]:
        lists = self._apt / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        options = {
            "Dir::State::lists": str(lists),
            "Dir::State::status": "/dev/null",
            "Dir::Cache": str(self._apt),
            "APT::Sandbox::User": "root",
            "APT::Architecture": "amd64",
            "APT::Update::Error-Mode": "any",  # else old lists stand in for those that did not come
            "APT::Update::Post-Invoke": "",
            "Acquire::Languages": "none",
            "Dir::Etc::SourceList": str(self._source_list()),
            "Dir::Etc::SourceParts": "/dev/null",
            **_STRICT,
        }
        return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]

    def _source_list(self) -> Path:
        path = self._apt / "sources.list"
        archives = ARCHIVES if self._mirror is None else ((self._mirror, ""),)
        lines = (f"deb [{TRUST}] {url} {self._suite}{kind} {_COMPONENT}\n" for url, kind in archives)
        path.write_text("".join(lines), encoding="utf-8")
        return path
