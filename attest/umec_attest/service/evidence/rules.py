"""How rounds go: who signs results for whom, which PCRs are asked for, how long things last."""

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from umec_attest.reference import ReferenceSet
from umec_attest.starts.decisions import NO_DECISIONS, DecisionRules
from umec_attest.starts.entry import STARTS_PCR
from umec_attest.tpm.pcr import PcrSelection

__all__ = ["RUNTIME_PCR", "RoundRules", "selection_of"]

RUNTIME_PCR = 10
"""What the kernel's IMA extends: asked for where the reference set of an image says what may run."""
AGGREGATED_PCRS = range(10)
"""Whose hash begins a list of runtime measurements: without them nobody knows of which boot it is."""


@dataclass(frozen=True, slots=True)
class RoundRules:
    """Times of rounds and results; `pcrs` are those of the boot, which every node is asked for."""

    issuer: str
    audience: str
    pcrs: tuple[int, ...]
    round: timedelta
    silent_rounds: int
    challenge: timedelta
    result: timedelta
    decisions: DecisionRules = NO_DECISIONS
    """Whose decisions about starts of applications count."""

    def asked(self, reference: ReferenceSet | None) -> tuple[int, ...]:
        """Return the PCRs that a node is asked for whose image has this reference set (None: has none that holds)."""
        if reference is None or (reference.runtime is None and not reference.starts):
            return self.pcrs
        listed = () if reference.runtime is None else (*AGGREGATED_PCRS, RUNTIME_PCR)
        return tuple(sorted({*self.pcrs, *listed, *((STARTS_PCR,) if reference.starts else ())}))


@lru_cache(maxsize=16)
def selection_of(pcrs: tuple[int, ...]) -> PcrSelection:
    """Return the selection of these PCRs in the SHA-256 bank."""
    return PcrSelection.from_mapping({"sha256": list(pcrs)})
