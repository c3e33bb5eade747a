"""The last verdict, for other programs of the node: {"standing", "generation", "version", "at"} in a file in memory.

`version` is that of the reference set by which the node was judged; None where the verdict gave no result. Who reads
the file believes this agent, and nobody else should.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from umec_core.jose import peek_claims

__all__ = ["VerdictFile", "judged_by"]


def judged_by(result: str | None) -> int | None:
    """Return the version of the reference set that an attestation result (EAR) names. Raises JwtInvalid."""
    said = {} if result is None else peek_claims(result).get("umec")
    version = said.get("reference_version") if isinstance(said, dict) else None
    return version if isinstance(version, int) else None


class VerdictFile:
    """Writes each verdict that is reported, whole, in the place of the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def heard(self, line: Mapping[str, object]) -> None:
        """Listen to what the agent reports."""
        if line.get("event") != "round":
            return
        said = {name: line.get(name) for name in ("standing", "generation", "version", "at")}
        draft = self._path.with_name(f".{self._path.name}")
        draft.write_text(json.dumps(said) + "\n")
        draft.replace(self._path)
