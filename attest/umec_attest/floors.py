"""Floors: a node that stood on a newer version of its image does not go back to an older one, also in its grace. Pure.

An update that is on trial is left by a node that loses its power before it is confirmed: that is no rollback. Nobody
sees from outside whether an image is confirmed, so a version becomes the floor after the node has stood on it for
`SETTLED`; the updater confirms within a round. After that an older version is not believed of this node
(`version-rollback`), until an operator lowers the floor. A floor is that of one image.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from umec_attest.bootlog.findings import Finding

__all__ = ["SETTLED", "VersionFloor", "lowered", "next_floor", "rollback_finding"]

SETTLED: Final = timedelta(hours=1)
"""From the first good round on a version on; somebody who confirms updates by hand does it within that time."""
_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class VersionFloor:
    """What is known of the versions that one node stood on.

    `version` of `image` is the last one (0: none), since `since` (RFC 3339; None: for long enough), and `floor` the
    lowest one that is believed.
    """

    image: str | None = None
    floor: int = 0
    version: int = 0
    since: str | None = None

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> "VersionFloor":
        """Read what `to_json` wrote; None is a node that never stood."""
        return cls() if text is None else _read(text)


def next_floor(known: VersionFloor, image: str, version: int, now: datetime) -> VersionFloor:
    """Return what is known after a good round on a version; the same object where that is nothing new."""
    if (image, version) != (known.image, known.version):
        floor = known.floor if known.image == image else 0
        return VersionFloor(image, floor, version, now.isoformat())
    if known.since is None or now - datetime.fromisoformat(known.since) < SETTLED:
        return known
    return replace(known, floor=max(known.floor, version), since=None)


def lowered(known: VersionFloor, version: int) -> VersionFloor:
    """Return what is known after an operator has allowed a node to go back to a version."""
    return replace(known, floor=version)


def rollback_finding(known: VersionFloor, image: str, version: int) -> Finding | None:
    """Return the finding about a node whose evidence is of a version below its floor."""
    if known.image != image or version >= known.floor:
        return None
    detail = f"the node booted version {version} of {image}, after it had stood on version {known.floor}"
    return Finding("version-rollback", detail, f"version {known.floor} or newer", f"version {version}")


@lru_cache(maxsize=_REMEMBERED)
def _read(text: str) -> VersionFloor:
    """What is settled is the same text on all nodes of a version."""
    return VersionFloor(**json.loads(text))
