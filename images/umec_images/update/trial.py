"""When a trial ends: the verifier trusts the node, or the time is over. Reads what the agent says of the last verdict.

A false "trusted" of the agent confirms an image that runs, signed and whole, from this disk. It makes no verifier trust
it: it costs the node the way back by itself, and an agent in the hands of others costs more than that already.
"""

import json
import os
import stat
from enum import Enum, unique
from pathlib import Path
from typing import Final

__all__ = ["AGENT_SILENT", "NOT_CONFIRMED", "NOT_TRUSTED", "Decision", "decide", "read_standing"]

TRUSTED: Final = "trusted"
NOT_TRUSTED: Final = "update-not-trusted"
"""It ran, and the verifier did not trust it in time."""
NOT_CONFIRMED: Final = "update-not-confirmed"
"""The verifier trusts it, and the node could not make it what starts: its disk, or the copy there, is damaged."""
AGENT_SILENT: Final = "update-agent-silent"
"""It ran, and had no verdict in time: no agent, no network, no site."""
MAX_STANDING: Final = 4096


@unique
class Decision(Enum):
    """What becomes of a trial now."""

    WAIT = "wait"
    CONFIRM = "confirm"
    LEAVE = "leave"


def decide(standing: str | None, elapsed: float, limit: float) -> Decision:
    """Return it, by the standing of the last verdict in this boot (None: there was none), seconds after it began."""
    if standing == TRUSTED:
        return Decision.CONFIRM
    return Decision.LEAVE if elapsed >= limit else Decision.WAIT


def read_standing(path: Path) -> str | None:
    """Return the standing that the agent wrote down, or None where it wrote none.

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
    standing = said.get("standing") if isinstance(said, dict) else None
    return standing if isinstance(standing, str) else None
