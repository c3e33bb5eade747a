"""Audit: somebody who keeps, or carries, a log touches it."""

import copy
import json
from collections.abc import Callable
from typing import Any, Final

from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.command import umec
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken

__all__ = ["ATTACKS"]

SERVICE: Final = "platform"


def removed(run: Run) -> str | None:
    """Remove an entry."""
    return _verify(run, lambda log: log["entries"].pop(1))


def rewritten(run: Run) -> str | None:
    """Rewrite an entry."""
    return _verify(run, lambda log: log["entries"][1].update(actor="nobody"))


def _verify(run: Run, touch: Callable[[dict[str, Any]], object]) -> str | None:
    """Touch a copy of a log whose original was just verified (link 12), and have it verified."""
    log = copy.deepcopy(json.loads((run.folder / f"{SERVICE}.audit.json").read_text()))
    touch(log)
    file = run.folder / "touched.audit.json"
    file.write_text(json.dumps(log))
    try:
        umec("audit", "verify", str(file), "--key", str(run.state / f"{SERVICE}-audit.pem"))
    except Broken as refused:
        return refused.code
    return None


HAS: Final = "a copy of the log"

ATTACKS: Final[tuple[Attack[Run], ...]] = (
    Attack("audit-entry-removed", "audit-gap", HAS, removed),
    Attack("audit-entry-rewritten", "audit-rewritten", HAS, rewritten),
)
