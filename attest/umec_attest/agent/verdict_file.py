"""The last verdict, for other programs of the node, in a file in memory.

It is {"standing", "generation", "version", "at", "certificate"}. `version` is that of the reference set by which the
node was judged; None where the verdict gave no result. `certificate` tells whether the node has a certificate for this
generation: it gets one after the verdict, and the file is written again then. Who reads the file believes this agent,
and nobody else should.
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
    """Writes each verdict that is reported, whole, in the place of the one before; and that its certificate came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said: dict[str, object] | None = None

    def heard(self, line: Mapping[str, object]) -> None:
        """Listen to what the agent reports."""
        match line.get("event"):
            case "round":
                said = {name: line.get(name) for name in ("standing", "generation", "version", "at")}
                self._write(said | {"certificate": line.get("certificate") is True})
            case "certificate" if self._said is not None and self._said["generation"] == line.get("generation"):
                self._write(self._said | {"certificate": True})

    def _write(self, said: dict[str, object]) -> None:
        draft = self._path.with_name(f".{self._path.name}")
        draft.write_text(json.dumps(said) + "\n")
        draft.replace(self._path)
        self._said = said
