"""Digests of TPM policies (TPM 2.0 Part 3, 23), in SHA-256: each function extends a digest as its command does.

A policy starts at `EMPTY` and is the chain of its commands in their order.
"""

from collections.abc import Mapping
from enum import IntEnum, unique
from typing import Final

from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.wire import u16, u32

__all__ = [
    "CLOCK_OFFSET",
    "EMPTY",
    "RESET_COUNT_OFFSET",
    "Comparison",
    "policy_authorize",
    "policy_counter_timer",
    "policy_nv",
    "policy_pcr",
]

EMPTY: Final = bytes(32)

CLOCK_OFFSET: Final = 8
RESET_COUNT_OFFSET: Final = 16
"""Where they are in a TPMS_TIME_INFO (Part 2, 10.11.1): time, clock, resetCount, …"""

_CC_POLICY_NV: Final = 0x0149
_CC_POLICY_AUTHORIZE: Final = 0x016A
_CC_POLICY_COUNTER_TIMER: Final = 0x016D
_CC_POLICY_PCR: Final = 0x017F

_SHA256: Final = HashAlgorithm.SHA256


@unique
class Comparison(IntEnum):
    """TPM_EO (Part 2, 6.8): how what the TPM has compares with the operand."""

    EQUAL = 0x0000
    AT_MOST = 0x0009
    """Unsigned, less or equal."""


def policy_pcr(digest: bytes, values: Mapping[int, bytes]) -> bytes:
    """Extend by TPM2_PolicyPCR: these PCRs of the SHA-256 bank have these values. Errors: `TpmInvalid` for none."""
    selection = PcrSelection.from_mapping({_SHA256.label: sorted(values)})
    joined = _SHA256.digest(b"".join(values[index] for index in sorted(values)))
    return _SHA256.digest(digest + u32(_CC_POLICY_PCR) + selection.to_bytes() + joined)


def policy_counter_timer(digest: bytes, operand: bytes, offset: int, comparison: Comparison) -> bytes:
    """Extend by TPM2_PolicyCounterTimer: so does the TPM's time information at `offset` compare with `operand`."""
    arguments = _SHA256.digest(operand + u16(offset) + u16(comparison))
    return _SHA256.digest(digest + u32(_CC_POLICY_COUNTER_TIMER) + arguments)


def policy_nv(digest: bytes, index_name: bytes, operand: bytes, comparison: Comparison) -> bytes:
    """Extend by TPM2_PolicyNV: so does the content of the NV index with this Name compare with `operand`."""
    arguments = _SHA256.digest(operand + u16(0) + u16(comparison))
    return _SHA256.digest(digest + u32(_CC_POLICY_NV) + arguments + index_name)


def policy_authorize(key_name: bytes, reference: bytes) -> bytes:
    """Return the policy of TPM2_PolicyAuthorize: whatever policy the key with this Name signs for `reference`.

    It begins anew: what came before in the chain is what the key has to have signed.
    """
    named = _SHA256.digest(EMPTY + u32(_CC_POLICY_AUTHORIZE) + key_name)
    return _SHA256.digest(named + reference)
