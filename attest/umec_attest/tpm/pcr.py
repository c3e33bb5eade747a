"""PCR selections (TPM 2.0 Part 2, 10.9.7: TPML_PCR_SELECTION)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from umec_attest.errors import TpmInvalid
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.wire import Reader, u8, u16, u32

__all__ = ["MAX_BANKS", "PCR_COUNT", "PcrBank", "PcrSelection", "parse_pcr_selection", "read_pcr_selection"]

PCR_COUNT: Final = 24
"""PCRs of the PC Client platform; sizeofSelect is therefore always 3."""

MAX_BANKS: Final = 16
"""HASH_COUNT of the reference implementation: a TPM answers with no longer list."""

_SELECT_SIZE: Final = PCR_COUNT // 8


@dataclass(frozen=True, slots=True)
class PcrBank:
    """The selected PCRs of one bank: ascending indices, each once."""

    algorithm: HashAlgorithm
    pcrs: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(not 0 <= index < PCR_COUNT for index in self.pcrs):
            raise TpmInvalid(f"PCR indices must be 0 to {PCR_COUNT - 1}: {self.pcrs}")
        if list(self.pcrs) != sorted(set(self.pcrs)):
            raise TpmInvalid(f"PCR indices must ascend, each once: {self.pcrs}")

    def to_bytes(self) -> bytes:
        """Return the TPMS_PCR_SELECTION."""
        bitmap = sum(1 << index for index in self.pcrs)
        return u16(self.algorithm) + u8(_SELECT_SIZE) + bitmap.to_bytes(_SELECT_SIZE, "little")


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """Banks in the order in which the TPM walks them."""

    banks: tuple[PcrBank, ...]

    @classmethod
    def from_mapping(cls, banks: Mapping[str, Sequence[int]]) -> "PcrSelection":
        """Build a selection from our JSON form: {"sha256": [0, 1, …]}.

        Errors: `TpmInvalid` for an unknown bank, a repeated or unknown PCR, or nothing selected.
        """
        if not banks or not all(banks.values()):
            raise TpmInvalid("a PCR selection must select something in each bank")
        try:
            algorithms = [HashAlgorithm.from_label(label) for label in banks]
        except KeyError as error:
            raise TpmInvalid(f"unknown PCR bank {error}") from None
        return cls(
            tuple(PcrBank(algorithm, tuple(pcrs)) for algorithm, pcrs in zip(algorithms, banks.values(), strict=True))
        )

    def to_mapping(self) -> dict[str, list[int]]:
        """Return our JSON form: {"sha256": [0, 1, …]}."""
        return {bank.algorithm.label: list(bank.pcrs) for bank in self.banks}

    def to_bytes(self) -> bytes:
        """Return the TPML_PCR_SELECTION."""
        return u32(len(self.banks)) + b"".join(bank.to_bytes() for bank in self.banks)


def parse_pcr_selection(data: bytes) -> PcrSelection:
    """Parse a TPML_PCR_SELECTION; `TpmInvalid` if it is none."""
    reader = Reader(data, what="TPML_PCR_SELECTION")
    selection = read_pcr_selection(reader)
    reader.finish()
    return selection


def read_pcr_selection(reader: Reader) -> PcrSelection:
    """Read a TPML_PCR_SELECTION inside another structure."""
    count = reader.u32()
    if count > MAX_BANKS:
        raise reader.fail(f"{count} PCR banks are beyond the limit of {MAX_BANKS}")
    return PcrSelection(tuple(_read_bank(reader) for _ in range(count)))


def _read_bank(reader: Reader) -> PcrBank:
    identifier = reader.u16()
    try:
        algorithm = HashAlgorithm(identifier)
    except ValueError:
        raise reader.fail(f"unknown PCR bank 0x{identifier:04x}") from None
    size = reader.u8()
    if size != _SELECT_SIZE:
        raise reader.fail(f"sizeofSelect must be {_SELECT_SIZE}, found {size}")
    return _bank(algorithm, int.from_bytes(reader.take(size), "little"))


@lru_cache(maxsize=64)
def _bank(algorithm: HashAlgorithm, bitmap: int) -> PcrBank:
    """All nodes are asked for the same few selections."""
    return PcrBank(algorithm, tuple(index for index in range(PCR_COUNT) if bitmap >> index & 1))
