"""When a trial ends: the node is trusted and has its certificate, or the time is over. Reads what the agent says.

A node that is trusted and gets no certificate could fetch no image any more: its key signs nothing in states that its
owner did not approve.

A false "trusted" of the agent confirms an image that runs, signed and whole, from this disk. It makes no verifier trust
it: it costs the node the way back by itself, and an agent in the hands of others costs more than that already.
"""

import json
import os
import stat
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path
from typing import Final

__all__ = ["NOT_CONFIRMED", "Decision", "Said", "decide", "read_said", "why_left"]

TRUSTED: Final = "trusted"
NOT_TRUSTED: Final = "update-not-trusted"
"""It ran, and the verifier did not trust it in time."""
NO_CERTIFICATE: Final = "update-no-certificate"
"""The verifier trusts it, and it has no certificate by that verdict: it could not ask for the next image."""
NOT_CONFIRMED: Final = "update-not-confirmed"
"""The verifier trusts it, and the node could not make it what starts: its disk, or the copy there, is damaged."""
AGENT_SILENT: Final = "update-agent-silent"
"""It ran, and had no verdict in time: no agent, no network, no site."""
MAX_STANDING: Final = 4096


@dataclass(frozen=True, slots=True)
class Said:
    """What the agent says: the standing by the last verdict in this boot, and whether it has a certificate by that."""

    standing: str
    certificate: bool


@unique
class Decision(Enum):
    """What becomes of a trial now."""

    WAIT = "wait"
    CONFIRM = "confirm"
    LEAVE = "leave"


def decide(said: Said | None, elapsed: float, limit: float) -> Decision:
    """Return it, by what the agent says (None: there was no verdict in this boot), seconds after the boot began."""
    if said is not None and said.standing == TRUSTED and said.certificate:
        return Decision.CONFIRM
    return Decision.LEAVE if elapsed >= limit else Decision.WAIT


def why_left(said: Said | None) -> str:
    """Return the code of a trial that is left with this as the agent's last word."""
    if said is None:
        return AGENT_SILENT
    return NO_CERTIFICATE if said.standing == TRUSTED else NOT_TRUSTED


def read_said(path: Path) -> Said | None:
    """Return what the agent wrote down, or None where it wrote no standing. A certificate that is not named is none.

    The folder is the agent's: what is there may be a link, a pipe, or without an end, and is not followed or awaited.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = file.read(MAX_STANDING + 1)
    try:
        said = json.loads(content) if len(content) <= MAX_STANDING else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("standing"), str):
        return None
    return Said(said["standing"], said.get("certificate") is True)
