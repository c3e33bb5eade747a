"""The NV counter that keeps older images out: a TPM counts it up and never down, also when it is made anew.

Its definition is the same on every node, so its Name is, and an owner can sign policies about it without asking a TPM.
Whoever may use the TPM may count it up: that locks a node out of its own secrets, as taking the TPM away would.
"""

from typing import Final

from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.wire import sized, u16, u32

__all__ = ["COUNTER_HANDLE", "COUNTER_SIZE", "counter_name", "counter_public"]

COUNTER_HANDLE: Final = 0x01805345
"""In the range that the owner of a machine assigns (TCG Registry of Reserved TPM 2.0 Handles, 2.3)."""
COUNTER_SIZE: Final = 8

_AUTH_WRITE: Final = 1 << 2
_COUNTER: Final = 1 << 4
_AUTH_READ: Final = 1 << 18
_NO_DA: Final = 1 << 25
_WRITTEN: Final = 1 << 29
"""TPMA_NV (Part 2, 13.4)."""


def counter_public(*, written: bool) -> bytes:
    """Return the TPMS_NV_PUBLIC; `written` since it was counted up for the first time."""
    attributes = _AUTH_WRITE | _COUNTER | _AUTH_READ | _NO_DA | (_WRITTEN if written else 0)
    return u32(COUNTER_HANDLE) + u16(HashAlgorithm.SHA256) + u32(attributes) + sized(b"") + u16(COUNTER_SIZE)


def counter_name() -> bytes:
    """Return the Name of the counter once it was counted up."""
    return u16(HashAlgorithm.SHA256) + HashAlgorithm.SHA256.digest(counter_public(written=True))
