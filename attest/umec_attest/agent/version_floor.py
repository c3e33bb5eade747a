"""The lowest version that a TPM still opens for: it rises when the node is trusted with a newer one, and never falls.

1  the verifier trusts the node in this boot
2  what runs is confirmed: until then the node may have to go back to the older image, and to its data
3  the approval is this owner's, for this image, and opens now: what does not run well locks nothing out

The TPM's counter then says no to approvals of lower versions, whoever starts an older image, signed and whole. A TPM
that has no time for it is asked again with the next round; what else stands against it does so until the next start.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from umec_attest.agent.errors import TpmUnavailable
from umec_attest.agent.image_owner import (
    APPROVAL,
    OWNER,
    RELEASE,
    ImageOwner,
    approval_for,
    check_state,
    read_approval,
    read_owner,
)
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.sealing import advance_counter, counter_value
from umec_core.errors import UmecError

__all__ = ["UPDATE", "VersionFloor", "is_confirmed", "raise_floor"]

UPDATE: Final = Path("/run/umec/update.json")
"""What root says of the update (`umec_images.update.status`)."""
MAX_UPDATE: Final = 16 * 1024
STEPS: Final = 100
"""A counter goes up one by one, in a discrete TPM some 20 times a second; meanwhile the agent does nothing else."""


class VersionFloor:
    """Raises the floor once it may rise; `say` hears that it did, or why it could not."""

    def __init__(
        self,
        tcti: str,
        say: Callable[[Mapping[str, object]], None],
        *,
        owner: Path = OWNER,
        release: Path = RELEASE,
        approval: Path = APPROVAL,
        update: Path = UPDATE,
    ) -> None:
        self._tcti, self._say = tcti, say
        self._owner, self._release, self._approval, self._update = owner, release, approval, update
        self._done = not owner.exists()

    def heard(self, line: Mapping[str, object]) -> None:
        """Listen to what the agent reports, round after round."""
        if self._done or line.get("event") != "round" or line.get("standing") != "trusted":  # 1
            return
        if not is_confirmed(self._update):  # 2
            return
        try:
            owner, approval = read_owner(self._owner, self._release), read_approval(self._approval)
            with Tpm(self._tcti) as tpm:
                before, now, self._done = raise_floor(tpm, owner, approval)
        except UmecError as error:
            self._done = not isinstance(error, TpmUnavailable)  # nothing else changes before the next start
            self._say({"event": "older-versions-not-shut-out", "code": error.code, "detail": error.detail})
            return
        if now != before:
            self._say({"event": "older-versions-shut-out", "version": now})


def raise_floor(tpm: Tpm, owner: ImageOwner, approval: bytes) -> tuple[int, int, bool]:
    """Count up towards the version of an approval; returns the counter before and after, and whether that was all.

    Raises ApprovalInvalid, ApprovalSignature, ApprovalOutdated, ApprovalPcrs, TpmUnavailable, TpmRefused.
    """
    approved = approval_for(owner, approval)
    check_state(tpm, approved)  # 3
    before = tpm.do(counter_value)
    now = tpm.do(lambda esys: advance_counter(esys, min(approved.version, before + STEPS)))
    return before, now, now >= approved.version


def is_confirmed(update: Path) -> bool:
    """Tell whether what runs is what this node starts whenever nobody asks for something else; unsaid is no."""
    try:
        with update.open("rb") as file:
            said = json.loads(file.read(MAX_UPDATE))
    except (OSError, ValueError, RecursionError):
        return False
    running = said.get("running") if isinstance(said, dict) else None
    return isinstance(running, dict) and bool(running) and running == said.get("confirmed")
