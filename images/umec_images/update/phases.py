"""How an update goes on: a state machine that touches nothing.

          begin            whole              armed              came back on the confirmed image
    NONE ───────► WRITING ───────► STAGED ───────────► TRIAL ───────────────────────────────────► FAILED
      ▲              ▲                                   │                                           │
      │              └───────── begin, another image ────┼───────────────────────────────────────────┘
      └────────────────────────── confirm ───────────────┘

What is `confirmed` starts whenever nobody asked for something else: it changes with `confirm` alone, by one sector.
"""

from enum import Enum, unique

from umec_images.update.errors import ImageFailed, ImageOlder, ImageOther, NothingOnTrial, TrialOpen
from umec_images.update.kernel import Kernel
from umec_images.update.state import Phase, Record

__all__ = ["Outcome", "begin", "confirmable", "settle"]


@unique
class Outcome(Enum):
    """What a node finds about its update when it has started."""

    NOTHING = "nothing"
    UNFINISHED = "unfinished"
    """An update was interrupted; running it again finishes it."""
    WAITING = "waiting"
    """An image is staged, and nobody asked for its trial."""
    ON_TRIAL = "on-trial"
    """This is the trial: confirm it when it is trusted. The next start is the old image's otherwise."""
    CONFIRMED = "confirmed"
    """The update was confirmed, and the power went before that was noted."""
    FELL_BACK = "fell-back"
    """The trial failed: the image did not start, was not confirmed, or its power was cut."""


def begin(record: Record, confirmed: Kernel, running: bytes, wanted: Kernel, manifest: str, *, again: bool) -> Phase:
    """Return where an update begins: WRITING, or STAGED where this very image is in the other slot already.

    `running` is the root hash of what runs, `manifest` the digest of the wanted image's.

    Raises ImageOther, ImageOlder, TrialOpen, and ImageFailed unless `again`.
    """
    if wanted.name != confirmed.name:
        raise ImageOther(f"the node has the image {confirmed.name}, and this one is {wanted.name}")
    if wanted.version <= confirmed.version:
        raise ImageOlder(
            f"the node has version {confirmed.version}, and this one is {wanted.version}",
            advice="build it anew with a higher version: a node takes no older image",
        )
    if wanted.root_hash == confirmed.root_hash:
        raise ImageOther("both versions have the same root file system: nobody could tell which of them runs")
    if running != confirmed.root_hash:
        raise TrialOpen(
            f"what runs is not confirmed: version {confirmed.version} is what the node would fall back to",
            advice="umec nodeimage update-confirm, once the node is trusted; or restart it",
        )
    if record.manifest != manifest:
        return Phase.WRITING
    if record.phase is Phase.FAILED and not again:
        raise ImageFailed(
            f"version {wanted.version} was tried on this node, and the node fell back",
            advice="find out why; --again tries it once more",
        )
    return Phase.STAGED if record.phase in {Phase.STAGED, Phase.TRIAL, Phase.FAILED} else Phase.WRITING


def settle(record: Record, confirmed: Kernel, other: Kernel | None, running: bytes) -> tuple[Phase, Outcome]:
    """Return what a node's update has come to when it has started, and what that is called."""
    if running != confirmed.root_hash:
        if other is not None and running == other.root_hash and record.phase in {Phase.STAGED, Phase.TRIAL}:
            return Phase.TRIAL, Outcome.ON_TRIAL
        raise NothingOnTrial("what runs is neither the confirmed image of this disk nor the one that is on trial")
    if record.phase is Phase.TRIAL:
        if confirmed.version == record.version:
            return Phase.NONE, Outcome.CONFIRMED
        return Phase.FAILED, Outcome.FELL_BACK
    outcomes = {Phase.NONE: Outcome.NOTHING, Phase.WRITING: Outcome.UNFINISHED, Phase.STAGED: Outcome.WAITING}
    return record.phase, outcomes.get(record.phase, Outcome.FELL_BACK)


def confirmable(record: Record, confirmed: Kernel, other: Kernel | None, running: bytes) -> bool:
    """Return whether the slots have to change places, for the image that runs to be confirmed.

    False where they have already. Raises NothingOnTrial.
    """
    _, outcome = settle(record, confirmed, other, running)
    if outcome is Outcome.ON_TRIAL:
        return True
    if outcome is Outcome.CONFIRMED:
        return False
    raise NothingOnTrial(
        f"version {confirmed.version} runs, and is confirmed",
        advice="an image is confirmed when it runs on trial: umec nodeimage update-status",
    )
