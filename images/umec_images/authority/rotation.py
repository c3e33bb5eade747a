"""Retire the keys of a signing authority: what they signed stays good, what they sign from now on is not believed.

`retired.json` in the state directory holds what trusted_root.json says of earlier keys, each with the end of its time.
Whoever stole *all* keys of an authority can date a signature back into that time: then the file must go, and what was
signed before must be signed again.
"""

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from umec_core.keys import write_private
from umec_images.authority.lock import StateLock
from umec_images.authority.material import NEXT, RETIRED, AuthorityMaterial, load_or_create, sync_folder
from umec_images.authority.trust import trusted_root

__all__ = ["rotate"]

DRAFT: Final = "next.draft"
"""The folder of a new set that is not whole yet: it counts for nothing."""
SECOND: Final = timedelta(seconds=1)


def rotate(state: Path, *, url: str, now: datetime) -> AuthorityMaterial:
    """End the keys in `state` now, and make new ones; an authority that has none yet gets its first.

    `url` is the public address of the registry. Wherever this is cut off, the old set counts as a whole, or the new one
    with all that it believes of the old. Raises AuthorityInUse while the service runs, or MaterialInvalid.
    """
    with StateLock.take(state):
        if (state / "ca.pem").exists():
            _make_next(state, url, now)
        return load_or_create(state, now=now)


def _make_next(state: Path, url: str, now: datetime) -> None:
    ended = trusted_root(load_or_create(state, now=now), url=url)
    for period in _periods(ended):
        # A second counts as a whole: nothing that was signed before this moment may fall.
        period.setdefault("end", (now + SECOND).strftime("%Y-%m-%dT%H:%M:%SZ"))
    draft = state / DRAFT
    if draft.exists():  # of a rotation that was cut off
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    write_private(draft / RETIRED, json.dumps(ended).encode())
    load_or_create(draft, now=now)
    draft.rename(state / NEXT)
    sync_folder(state)


def _periods(root: dict[str, Any]) -> Iterator[dict[str, str]]:
    for authority in (*root["certificateAuthorities"], *root["timestampAuthorities"]):
        yield authority["validFor"]
    for log in (*root["tlogs"], *root["ctlogs"]):
        yield log["publicKey"]["validFor"]
