"""How far a node's log of starts is judged already: what the verifier keeps between two rounds."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Self

from umec_attest.bootlog.findings import Finding
from umec_attest.errors import StartLogInvalid

__all__ = ["BEGINNING", "StartCheckpoint"]

BEGINNING: Final = bytes(32)
"""PCR 15 (SHA-256) after a boot."""


@dataclass(frozen=True, slots=True)
class StartCheckpoint:
    """After `entries` starts of the boot `reset_count`, PCR 15 was `pcr`, with these findings.

    `restart_count` is that of the last quote that it reached. `asked_at` is when the last challenge was made whose
    quote was judged up to its end (None: none was): what was not started by then was started later. With no entry it
    is one of any boot.
    """

    reset_count: int = 0
    restart_count: int = 0
    entries: int = 0
    pcr: bytes = BEGINNING
    asked_at: datetime | None = None
    findings: tuple[Finding, ...] = ()

    def of_next_boot(self) -> Self:
        """Return what is left of it when the node booted."""
        return replace(self, reset_count=0, restart_count=0, entries=0, pcr=BEGINNING, findings=())

    def to_json(self) -> dict[str, Any]:
        """Return the members for JSON: the PCR in hex, the time in seconds since 1970."""
        at = None if self.asked_at is None else self.asked_at.timestamp()
        findings = [finding.to_json() for finding in self.findings]
        return {**asdict(self), "pcr": self.pcr.hex(), "asked_at": at, "findings": findings}

    @classmethod
    def from_json(cls, value: Any) -> "StartCheckpoint":  # noqa: ANN401 - whatever JSON gives
        """Return what `to_json` gave; `StartLogInvalid` for anything else."""
        try:
            at = None if value["asked_at"] is None else datetime.fromtimestamp(value["asked_at"], UTC)
            findings = tuple(Finding(**finding) for finding in value["findings"])
            kept = cls(**{**value, "pcr": bytes.fromhex(value["pcr"]), "asked_at": at, "findings": findings})
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            raise _invalid() from None
        counts = (kept.reset_count, kept.restart_count, kept.entries)
        if not all(type(count) is int and count >= 0 for count in counts) or len(kept.pcr) != len(BEGINNING):
            raise _invalid()
        return kept


def _invalid() -> StartLogInvalid:
    return StartLogInvalid("no checkpoint of a log of starts")
