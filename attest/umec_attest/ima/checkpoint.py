"""How far a node's list of runtime measurements is judged already: what the verifier keeps between two rounds."""

from dataclasses import dataclass
from typing import Any

from umec_attest.errors import ImaInvalid
from umec_attest.tpm.algorithms import SIGNING_HASHES

__all__ = ["ImaCheckpoint"]

_SIZES = frozenset(algorithm.digest_size for algorithm in SIGNING_HASHES)


@dataclass(frozen=True, slots=True)
class ImaCheckpoint:
    """After `entries` entries of the boot `reset_count`, PCR 10 was `pcr`, and a quote said so."""

    reset_count: int
    entries: int
    pcr: bytes

    def to_json(self) -> dict[str, Any]:
        """Return {"reset_count", "entries", "pcr": hex} for JSON."""
        return {"reset_count": self.reset_count, "entries": self.entries, "pcr": self.pcr.hex()}

    @classmethod
    def from_json(cls, value: object) -> "ImaCheckpoint":
        """Return what `to_json` gave; `ImaInvalid` for anything else."""
        match value:
            case {"reset_count": int(reset_count), "entries": int(entries), "pcr": str(pcr), **rest} if not rest:
                pass
            case _:
                raise ImaInvalid("no checkpoint of a list")
        try:
            raw = bytes.fromhex(pcr)
        except ValueError:
            raise ImaInvalid("the PCR of a checkpoint is hex") from None
        if reset_count < 0 or entries < 1 or len(raw) not in _SIZES:
            raise ImaInvalid("a checkpoint counts from one entry on, and has a PCR of a SHA-2 bank")
        return cls(reset_count, entries, raw)
