"""How far a node's list of runtime measurements is judged already: what the verifier keeps between two rounds."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from umec_attest.bootlog.findings import Finding
from umec_attest.errors import ImaInvalid
from umec_attest.tpm.algorithms import SIGNING_HASHES

__all__ = ["ImaCheckpoint"]

_SIZES: Final = frozenset(algorithm.digest_size for algorithm in SIGNING_HASHES)


@dataclass(frozen=True, slots=True)
class ImaCheckpoint:
    """After `entries` entries of the boot `reset_count`, PCR 10 was `pcr`.

    They were judged by the runtime policy `policy_sha256` (hex), with these findings: what happened in a boot does not
    go away by telling it once. `restart_count` is that of the quote: what the TPM takes for a restart (a hibernation)
    makes the PCRs zero as well.
    """

    reset_count: int
    entries: int
    pcr: bytes
    policy_sha256: str
    findings: tuple[Finding, ...] = ()
    restart_count: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """What is counted: none of it is below 0."""
        return self.reset_count, self.entries, self.restart_count

    def to_json(self) -> dict[str, Any]:
        """Return the members for JSON, the PCR in hex."""
        findings = [finding.to_json() for finding in self.findings]
        return {**asdict(self), "pcr": self.pcr.hex(), "findings": findings}

    @classmethod
    def from_json(cls, value: Any) -> "ImaCheckpoint":  # noqa: ANN401 - whatever JSON gives
        """Return what `to_json` gave; `ImaInvalid` for anything else."""
        try:
            findings = tuple(Finding(**finding) for finding in value["findings"])
            checkpoint = cls(**{**value, "pcr": bytes.fromhex(value["pcr"]), "findings": findings})
        except (KeyError, TypeError, ValueError):
            raise _invalid() from None
        if not all(type(count) is int and count >= 0 for count in checkpoint.counts):
            raise _invalid()
        if len(checkpoint.pcr) not in _SIZES or not isinstance(checkpoint.policy_sha256, str):
            raise _invalid()
        return checkpoint


def _invalid() -> ImaInvalid:
    return ImaInvalid("no checkpoint of a list of runtime measurements")
