"""Trust tiers and claims of AR4SI (draft-ietf-rats-ar4si), and which finding is of which tier and about which claim."""

from dataclasses import dataclass
from typing import Final

from umec_attest.bootlog.findings import Finding

__all__ = [
    "AFFIRMING",
    "CLAIMS",
    "CLAIM_OF_PCR",
    "CONTRAINDICATED",
    "INFORMATION",
    "JUDGED",
    "WARNING",
    "WARNINGS",
    "JudgedFinding",
]

INFORMATION: Final = frozenset({"clock-unsafe", "rebooted"})
"""Findings that are worth telling, and nothing else."""
WARNINGS: Final = frozenset({"boot-application-early", "clock-unsafe-long", "firmware-error", "secure-boot-off"})
"""Findings that somebody should look at. Every other one contradicts what is expected."""

AFFIRMING, WARNING, CONTRAINDICATED = 2, 32, 96
"""AR4SI trust tiers; 0 is "no claim"."""
CLAIMS: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
JUDGED: Final = frozenset({"instance-identity", "configuration", "executables", "hardware"})
"""What a quote and a boot log say something about; for the others the vector says 0, no claim."""
CLAIM_OF_PCR: Final = {0: "hardware", 2: "hardware", 1: "configuration", 3: "configuration", 5: "configuration"} | {
    6: "configuration",
    7: "configuration",
}
"""Firmware is hardware to whom runs on it; every PCR that is not here holds executables, or what steers them."""


@dataclass(frozen=True, slots=True)
class JudgedFinding:
    """A finding, and the AR4SI claim that it is about."""

    finding: Finding
    claim: str

    @property
    def tier(self) -> int:
        """The tier that this finding alone puts its claim into: what is not known to be harmless contradicts."""
        if self.finding.id in INFORMATION:
            return AFFIRMING
        return WARNING if self.finding.id in WARNINGS else CONTRAINDICATED
