"""What a list of runtime measurements is worth against a runtime policy."""

from dataclasses import dataclass
from typing import Final

from umec_attest.bootlog.findings import Finding
from umec_attest.ima.checkpoint import ImaCheckpoint

__all__ = ["RUNTIME_WARNINGS", "RuntimeJudged"]

RUNTIME_WARNINGS: Final = frozenset({"ima-violation-tolerated"})
"""Findings of a list that somebody should look at; every other one contradicts what is expected."""


@dataclass(frozen=True, slots=True)
class RuntimeJudged:
    """What was found in the entries that a quote proves.

    `checkpoint` is what to keep for the next round; `entries` is how many were judged now.
    """

    findings: tuple[Finding, ...]
    checkpoint: ImaCheckpoint
    entries: int
