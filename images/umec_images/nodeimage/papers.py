"""`manifest.json` of a node image: its name and version, and the digest and size of each of its files.

Read by hand: a node reads it before it takes an image, and carries no library for that.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from umec_images.nodeimage.errors import PapersInvalid

__all__ = ["APPROVAL", "MAX_PAPERS", "PAPERS", "Papers", "parse_papers"]

PAPERS: Final = "manifest.json"
APPROVAL: Final = "approval"
"""What the owner of an image signed after the build (`umec_images.nodeimage.approval`); not every image has it."""
MAX_PAPERS: Final = 1024 * 1024
"""Bytes of a manifest.json; one has some 3 KB."""
MAX_SIZE: Final = 1 << 40
"""Bytes of a file, as of anything in a registry."""
MAX_VERSION: Final = 2**31 - 1
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Papers:
    """What a manifest.json says: name, version (a counter), and the digest and size in bytes of each file by path."""

    name: str
    version: int
    files: Mapping[str, tuple[str, int]]


def parse_papers(raw: bytes) -> Papers:
    """Read a manifest.json; raises PapersInvalid.

    What else it says is for others: a node takes an image whose builder says more of it than the last one.
    """
    if len(raw) > MAX_PAPERS:
        raise PapersInvalid(f"{PAPERS} has more than {MAX_PAPERS} bytes")
    try:
        said = json.loads(raw.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise PapersInvalid(f"{PAPERS} is no JSON in which each member has one name") from error
    if not isinstance(said, dict):
        raise PapersInvalid(f"{PAPERS} is no object")
    name, files = said.get("name"), said.get("files")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise PapersInvalid(f"{PAPERS}: 'name': this is none of an image")
    if not isinstance(files, dict):
        raise PapersInvalid(f"{PAPERS}: 'files': this is no object")
    version = _whole(said.get("version"), 1, MAX_VERSION, "version")
    return Papers(name, version, {path: _file(path, each) for path, each in files.items()})


def _file(path: str, said: object) -> tuple[str, int]:
    place = f"files.{path[:40]}"
    if not isinstance(said, dict) or said.keys() != {"sha256", "size"}:
        raise PapersInvalid(f"{PAPERS}: {place!r}: a file has sha256 and size, and nothing else")
    digest = said["sha256"]
    if not isinstance(digest, str) or _SHA256.fullmatch(digest) is None:
        raise PapersInvalid(f"{PAPERS}: {place!r}: this is no SHA-256 in hex")
    return f"sha256:{digest}", _whole(said["size"], 0, MAX_SIZE, place)


def _whole(value: object, least: int, most: int, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise PapersInvalid(f"{PAPERS}: {place!r}: this is no whole number from {least} to {most}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member has the same name as another")
    return members
