"""Boots of an open box: which of them somebody announced. Pure.

Whoever opens the box of a node can cut its power, swap a disk and start it again, and every measurement may still be
good. So for nodes of the class *open-box* a boot that nobody announced is told (`reset-unannounced`) until an operator
has looked and cleared it; policies decide what it means meanwhile.

A TPM whose state was saved (TPM2_Shutdown(STATE)) and that starts anew after its power was off counts no reset: only
restartCount rises, as after a suspend. So each restart of a boot counts as a boot, too; restartCount begins at 0 with
each reset (TPM 2.0 Part 1, 36).

TPM2_Clear sets both to 0: how often the box was off before is not to be known, so counts that fell are those of boots
since then, and of one at least.

| resetCount, then restartCount  | announcement                 | means                                             |
|--------------------------------|------------------------------|---------------------------------------------------|
| first seen, or the same        | whatever                     | no boot                                           |
| other                          | in time, for so many or more | announced; the announcement is used up            |
| other                          | none, over, or for fewer     | not announced; what was announced is used up, too |

An announcement is for one time: after the boot that it was for, the next one wants another.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from umec_attest.bootlog.findings import Finding

__all__ = [
    "MAX_RESETS",
    "PAUSE",
    "ResetWatch",
    "announced",
    "cleared",
    "covered",
    "next_watch",
    "own_pause",
    "reset_finding",
]

MAX_RESETS: Final = 8
"""Boots that one announcement is good for: an update of the firmware boots a few times."""
PAUSE: Final = timedelta(minutes=1)
"""Between two announcements of a node itself: each is an entry of the audit log, and a fallen node has time."""


@dataclass(frozen=True, slots=True)
class ResetWatch:
    """What is known of the boots of one node.

    `seen` is the resetCount of the last accepted evidence (None: there was none), `unannounced` that of the last boot
    that nobody announced and nobody cleared, `until` (RFC 3339) and `resets` the announcement that is not used yet.
    `restarts` is the restartCount of the last accepted evidence (None: it was not kept then), `own_at` (RFC 3339) when
    the node itself announced a boot last.
    """

    seen: int | None = None
    unannounced: int | None = None
    until: str | None = None
    resets: int = 0
    restarts: int | None = None
    own_at: str | None = None

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> "ResetWatch":
        """Read what `to_json` wrote; None is a node of which nothing is known yet."""
        return cls() if text is None else cls(**json.loads(text))

    @property
    def deadline(self) -> datetime | None:
        """Until when a boot is announced."""
        return None if self.until is None else datetime.fromisoformat(self.until)


def covered(watch: ResetWatch, now: datetime, *, until: datetime, resets: int) -> bool:
    """Return whether the announcement that runs is good for as many boots, and, within `PAUSE`, for as long."""
    deadline = watch.deadline
    return deadline is not None and now < deadline and until - deadline < PAUSE and resets <= watch.resets


def own_pause(watch: ResetWatch, now: datetime) -> timedelta:
    """Return how long the node itself has to wait before it announces another boot (0: not at all)."""
    if watch.own_at is None:
        return timedelta(0)
    return max(timedelta(0), PAUSE - abs(now - datetime.fromisoformat(watch.own_at)))


def announced(watch: ResetWatch, *, until: datetime, resets: int) -> ResetWatch:
    """Return the watch with an announcement, in the place of one that was not used."""
    return replace(watch, until=until.isoformat(), resets=resets)


def cleared(watch: ResetWatch) -> ResetWatch:
    """Return the watch after somebody has looked at the node."""
    return replace(watch, unannounced=None)


def next_watch(watch: ResetWatch, reset_count: int, restart_count: int, now: datetime) -> ResetWatch:
    """Return the watch after accepted evidence with these counts, as in the table above."""
    if watch.seen is None:
        return replace(watch, seen=reset_count, restarts=restart_count)
    restarts = restart_count if watch.restarts is None else watch.restarts
    boots = _boots((watch.seen, restarts), (reset_count, restart_count))
    if boots == 0:
        return replace(watch, restarts=restarts)
    in_time = watch.deadline is not None and now < watch.deadline
    known = in_time and boots <= watch.resets
    unannounced = watch.unannounced if known else reset_count
    return ResetWatch(reset_count, unannounced, restarts=restart_count, own_at=watch.own_at)


def _boots(before: tuple[int, int], after: tuple[int, int]) -> int:
    """Return how many boots lie between two pairs of resetCount and restartCount."""
    resets, restarts = after[0] - before[0], after[1] - before[1]
    if after < before:
        return max(1, sum(after))
    return resets + after[1] if resets else restarts


def reset_finding(watch: ResetWatch) -> Finding | None:
    """Return the finding about a boot that nobody announced and nobody cleared."""
    if watch.unannounced is None:
        return None
    return Finding(
        "reset-unannounced", f"the box was off or asleep, or was reset, at boot {watch.unannounced}, and nobody said so"
    )
