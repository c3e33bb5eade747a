"""The version of an image: the annotation `org.opencontainers.image.version`, as a semantic version (semver.org 2.0.0).

The annotation is part of the manifest, so the digest covers it, and so does whoever signs the digest. Any other
versioning is none here: what cannot be ordered cannot be protected from going back.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from umec_images.oci.errors import VersionInvalid

__all__ = ["MAX_VERSION", "VERSION", "Version", "parse_version", "version_of"]

VERSION: Final = "org.opencontainers.image.version"
MAX_VERSION: Final = 128
"""Characters; a version with a commit and a date in it has some fifty."""

_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER: Final = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER: Final = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)

_Identifier = tuple[bool, int, str]


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A semantic version. Versions that differ in build metadata alone are equal, as their precedence is."""

    release: tuple[int, int, int]
    final: bool
    """What has no pre-release part comes after what has one."""
    prerelease: tuple[_Identifier, ...]
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


def parse_version(text: str) -> Version:
    """Return a version; raises VersionInvalid."""
    match = _SEMVER.fullmatch(text) if len(text) <= MAX_VERSION else None
    if match is None:
        raise VersionInvalid(
            f"{text[:MAX_VERSION]!r} is no semantic version",
            advice="Write MAJOR.MINOR.PATCH, as in 1.4.0 or 1.4.0-rc.1.",
        )
    major, minor, patch, prerelease = match.groups()
    identifiers = () if prerelease is None else tuple(_identifier(each) for each in prerelease.split("."))
    return Version((int(major), int(minor), int(patch)), prerelease is None, identifiers, text)


def version_of(annotations: Mapping[str, str]) -> Version | None:
    """Return the version that a manifest's annotations state; None where they state none, or none that has an order."""
    try:
        return parse_version(annotations.get(VERSION, ""))
    except VersionInvalid:
        return None


def _identifier(text: str) -> _Identifier:
    """Numbers are ordered as numbers, and come before words (semver.org, 11.4)."""
    return (False, int(text), "") if text.isdigit() else (True, 0, text)
