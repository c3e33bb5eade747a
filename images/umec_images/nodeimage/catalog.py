"""What the sources of Debian packages offer: parsed from `apt-cache dumpavail`, and closed over dependencies."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from umec_images.build.errors import PackageMissing
from umec_images.build.packages import Package, closure
from umec_images.nodeimage.errors import PackageUnknown

__all__ = ["INSTALL_ONLY", "Offer", "needed", "parse_offers"]

INSTALL_ONLY: Final = frozenset(
    {
        "adduser", "ca-certificates", "cdebconf", "dpkg", "gcc-12-base", "init-system-helpers", "initramfs-tools",
        "linux-base", "lsb-base", "openssl", "passwd", "sysvinit-utils", "tpm-udev", "ucf",
    }
)  # fmt: skip
"""Others depend on them for what their installation scripts do; nothing is installed here, files are put in place."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NATIVE: Final = ("amd64", "all")


@dataclass(frozen=True, slots=True)
class Offer:
    """A package of a source: which version there is, and the digest that the signed lists promise."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]


def parse_offers(text: str) -> Mapping[str, Offer]:
    """Read paragraphs (deb822); those without a digest or of another architecture are left out."""
    offers = {}
    for paragraph in text.split("\n\n"):
        fields = _fields(paragraph)
        name, digest, size = fields.get("Package"), fields.get("SHA256", ""), fields.get("Size", "")
        if not name or "Version" not in fields or fields.get("Architecture") not in _NATIVE:
            continue
        if _SHA256.fullmatch(digest) is None or not (size.isascii() and size.isdecimal()):
            continue
        groups = (*_groups(fields.get("Pre-Depends", "")), *_groups(fields.get("Depends", "")))
        provided = tuple(each for group in _groups(fields.get("Provides", "")) for each in group)
        known = (fields["Version"], fields["Architecture"], digest, int(size))
        offers[name] = Offer(name, *known, groups, provided)
    return offers


def needed(wanted: Iterable[str], offers: Mapping[str, Offer], exclude: Iterable[str]) -> list[Offer]:
    """Return what is wanted and all that it depends on, sorted by name. Raises PackageUnknown."""
    known = {
        name: Package(name, each.version, each.architecture, each.provides, each.depends)
        for name, each in offers.items()
    }
    try:
        found = closure(wanted, known, INSTALL_ONLY.union(exclude))
    except PackageMissing as error:
        raise PackageUnknown(
            f"the sources have {error.detail.replace(' is installed here', '')}",
            advice="correct the recipe, or leave out what nobody needs, under `exclude`",
        ) from error
    return [offers[each.name] for each in found]


def _fields(paragraph: str) -> dict[str, str]:
    fields = {}
    for line in paragraph.splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith((" ", "\t")):
            fields[name] = value.strip()
    return fields


def _groups(field: str) -> tuple[tuple[str, ...], ...]:
    """Split `a (>= 1) | b:any, c` into (("a", "b"), ("c",))."""
    return tuple(
        tuple(re.split(r"[\s(:\[<]", each.strip(), maxsplit=1)[0] for each in group.split("|"))
        for group in field.split(",")
        if group.strip()
    )
