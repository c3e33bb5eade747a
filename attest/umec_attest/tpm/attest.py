"""What a TPM signs (TPM 2.0 Part 2, 10.12.12: TPMS_ATTEST), for quotes and key certifications."""

import struct
from dataclasses import dataclass
from typing import Final

from umec_attest.tpm.algorithms import MAX_DIGEST_SIZE
from umec_attest.tpm.pcr import PcrSelection, read_pcr_selection
from umec_attest.tpm.wire import Reader, sized, u8, u16, u32, u64

__all__ = ["Attest", "Certified", "ClockInfo", "Quoted", "parse_attest"]

_GENERATED_VALUE: Final = 0xFF544347
_CLOCK: Final = struct.Struct(">QIIBQ")
"""TPMS_CLOCK_INFO and firmwareVersion."""
_ST_ATTEST_CERTIFY: Final = 0x8017
_ST_ATTEST_QUOTE: Final = 0x8018
_OTHER_TYPES: Final = {
    0x8014: "NV",
    0x8015: "COMMAND_AUDIT",
    0x8016: "SESSION_AUDIT",
    0x8019: "TIME",
    0x801A: "CREATION",
    0x801C: "NV_DIGEST",
}
"""TPM_ST (Part 2, 6.9): what else a TPM attests. None of it says anything that this verifier asks for."""

MAX_NAME_SIZE: Final = 2 + MAX_DIGEST_SIZE
"""TPM2B_NAME: an algorithm and the largest digest."""

MAX_EXTRA_DATA_SIZE: Final = 2 + MAX_DIGEST_SIZE
"""TPM2B_DATA: as large as a TPMT_HA."""


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """TPMS_CLOCK_INFO: `clock` in milliseconds, counters since the last TPM2_Clear."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True)
class Quoted:
    """TPMS_QUOTE_INFO: which PCRs, and the digest over their values in the order of the selection."""

    selection: PcrSelection
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class Certified:
    """TPMS_CERTIFY_INFO: the Name and the Qualified Name of the certified object."""

    name: bytes
    qualified_name: bytes


@dataclass(frozen=True, slots=True)
class Attest:
    """A TPMS_ATTEST, as parsed: nothing in it is believed before its signature is verified."""

    qualified_signer: bytes
    extra_data: bytes
    clock_info: ClockInfo
    firmware_version: int
    attested: Quoted | Certified

    def to_bytes(self) -> bytes:
        """Return the TPMS_ATTEST."""
        kind, body = _attested_to_bytes(self.attested)
        clock = self.clock_info
        return b"".join(
            (
                u32(_GENERATED_VALUE),
                u16(kind),
                sized(self.qualified_signer),
                sized(self.extra_data),
                u64(clock.clock),
                u32(clock.reset_count),
                u32(clock.restart_count),
                u8(clock.safe),
                u64(self.firmware_version),
                body,
            )
        )


def parse_attest(data: bytes) -> Attest:
    """Parse a TPMS_ATTEST of type QUOTE or CERTIFY.

    Errors: `TpmInvalid` for another magic or type, a size out of bounds, a truncated or a longer structure.
    """
    reader = Reader(data, what="TPMS_ATTEST")
    if reader.u32() != _GENERATED_VALUE:
        raise reader.fail("the magic is not TPM_GENERATED_VALUE")
    kind = reader.u16()
    qualified_signer, extra_data = reader.sized(MAX_NAME_SIZE), reader.sized(MAX_EXTRA_DATA_SIZE)
    clock, reset_count, restart_count, safe, firmware_version = reader.numbers(_CLOCK)
    if safe not in (0, 1):
        raise reader.fail(f"TPMI_YES_NO must be 0 or 1, found {safe}")
    clock_info = ClockInfo(clock, reset_count, restart_count, safe == 1)
    attest = Attest(qualified_signer, extra_data, clock_info, firmware_version, _read_attested(reader, kind))
    reader.finish()
    return attest


def _read_attested(reader: Reader, kind: int) -> Quoted | Certified:
    if kind == _ST_ATTEST_QUOTE:
        return Quoted(read_pcr_selection(reader), reader.sized(MAX_DIGEST_SIZE))
    if kind == _ST_ATTEST_CERTIFY:
        return Certified(reader.sized(MAX_NAME_SIZE), reader.sized(MAX_NAME_SIZE))
    raise reader.fail(f"neither a quote nor a certification: {_OTHER_TYPES.get(kind, 'unknown')}, type 0x{kind:04x}")


def _attested_to_bytes(attested: Quoted | Certified) -> tuple[int, bytes]:
    if isinstance(attested, Quoted):
        return _ST_ATTEST_QUOTE, attested.selection.to_bytes() + sized(attested.pcr_digest)
    return _ST_ATTEST_CERTIFY, sized(attested.name) + sized(attested.qualified_name)
