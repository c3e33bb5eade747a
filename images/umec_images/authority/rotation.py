"""Retire the keys of a signing authority: what they signed stays good, what they sign from now on is not believed.

`retired.json` in the state directory holds what trusted_root.json says of earlier keys, each with the end of its time.
Whoever stole *all* keys of an authority can date a signature back into that time: then the file must go, and what was
signed before must be signed again.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from umec_core.keys import write_private
from umec_images.authority.material import RETIRED, AuthorityMaterial, load_or_create
from umec_images.authority.trust import trusted_root

__all__ = ["rotate"]

KEYS: Final = ("ca", "ct", "log", "tsa")
SECOND: Final = timedelta(seconds=1)


def rotate(state: Path, *, url: str, now: datetime) -> AuthorityMaterial:
    """End the keys in `state` now, and make new ones; an authority that has none yet gets its first.

    `url` is the public address of the registry. The service must not be running. Raises MaterialInvalid.
    """
    if (state / "ca.pem").exists():
        ended = trusted_root(load_or_create(state, now=now), url=url)
        for period in _periods(ended):
            # A second counts as a whole: nothing that was signed before this moment may fall.
            period.setdefault("end", (now + SECOND).strftime("%Y-%m-%dT%H:%M:%SZ"))
        write_private(state / RETIRED, json.dumps(ended).encode())
        for name in KEYS:
            (state / f"{name}.key").unlink()
        for name in ("ca.pem", "tsa.pem", "tsa-root.pem"):
            (state / name).unlink()
    return load_or_create(state, now=now)


def _periods(root: dict[str, Any]) -> Iterator[dict[str, str]]:
    for authority in (*root["certificateAuthorities"], *root["timestampAuthorities"]):
        yield authority["validFor"]
    for log in (*root["tlogs"], *root["ctlogs"]):
        yield log["publicKey"]["validFor"]
