"""Which stage of a boot is another one than the reference set's, in words. It decides nothing: the PCR's value does."""

from collections.abc import Sequence
from dataclasses import dataclass

from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.bootlog.replay import ReplayedLog
from umec_attest.reference import Stage
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["Difference", "difference", "measured"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Stages whose measurement is another one or missing, and how many measurements the image does not make."""

    changed: tuple[str, ...]
    strange: int

    @property
    def text(self) -> str:
        """For an operator, behind the name of the PCR."""
        if self.changed and self.strange:
            return f"not that of the image: {', '.join(self.changed)}"
        if self.changed:
            return f"not measured: {', '.join(self.changed)}"
        if self.strange:
            return f"measured beside what the image measures: {self.strange}"
        return "the image's measurements, in another order or more than once"


def difference(expected: Sequence[Stage], found: Sequence[bytes]) -> Difference:
    """Return where two lists of measurements of a PCR differ whose values differ."""
    known, made = {stage.digest for stage in expected}, set(found)
    changed = dict.fromkeys(stage.name for stage in expected if stage.digest not in made)
    return Difference(tuple(changed), sum(digest not in known for digest in found))


def measured(log: ReplayedLog, pcr: int) -> list[bytes]:
    """Return what a boot measured into a PCR of the SHA-256 bank, in order."""
    bank = HashAlgorithm.SHA256
    digests = [event.digest(bank) for event in log.events if event.pcr == pcr and event.type != EV_NO_ACTION]
    digests += [record.digest(bank) for record in log.userspace if record.pcr == pcr]
    return [digest for digest in digests if digest is not None]
