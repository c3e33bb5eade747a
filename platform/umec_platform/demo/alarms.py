"""Which standings changed while a story was told, by the verifier's own log, and which of them nobody had provoked."""

from typing import Final

from umec_platform.demo.hand import ATTEST, Hand
from umec_platform.demo.run import Run

__all__ = ["Alarms"]

BACK: Final = "trusted"
"""The standing that is never an alarm."""

Change = tuple[str, str]
"""A node, and the standing that it was given."""


class Alarms:
    """Reads the changes from the audit log, story by story."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._read = 0
        self._news()

    def told(self, story: str, provoked: frozenset[Change] = frozenset()) -> None:
        """Show how many changes since the last story are false alarms: neither provoked by it nor a way back."""
        changes = self._news()
        false = [change for change in changes if change[1] != BACK and change not in provoked]
        seen = ", ".join(f"{node} {standing}" for node, standing in changes) or "no standing changed"
        self._run.timeline.effect(f"{story}: false alarms: {len(false)}", ok=not false, ms=None, detail=seen)

    def _news(self) -> list[Change]:
        """Return the changes in the entries that were not read yet."""
        changes: list[Change] = []
        more = True
        with self._run.http() as http:
            operator = Hand.of(http, self._run.state / "operator.json")
            while more:
                page = operator.have("GET", f"{ATTEST}/audit?after={self._read}", ATTEST).json()
                self._read += len(page["entries"])
                changed = (entry for entry in page["entries"] if entry["action"] == "standing.change")
                changes += [(entry["subject"], entry["facts"]["to"]) for entry in changed]
                more = "next" in page
        return changes
