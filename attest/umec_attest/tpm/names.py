"""Qualified Names (TPM 2.0 Part 1, 16 and 26.5): where in a TPM's hierarchies a key lives."""

from enum import IntEnum, unique
from functools import lru_cache
from typing import Final

from umec_attest.tpm.public import Public
from umec_attest.tpm.wire import u16, u32

__all__ = ["Hierarchy", "qualified_name", "signer_name"]

REMEMBERED: Final = 32_768
"""Names that are kept, of keys that are kept anyway."""


@unique
class Hierarchy(IntEnum):
    """TPMI_RH_HIERARCHY: the handles that end every chain of parents."""

    OWNER = 0x40000001
    NULL = 0x40000007
    ENDORSEMENT = 0x4000000B
    PLATFORM = 0x4000000C


@lru_cache(maxsize=REMEMBERED)
def qualified_name(public: Public, parent: bytes | Hierarchy) -> bytes:
    """Return the Qualified Name of a key under a parent (its Qualified Name, or the hierarchy of a primary key).

    It is asked in every round of a node.
    """
    above = u32(parent) if isinstance(parent, Hierarchy) else parent
    return u16(public.name_algorithm) + public.name_algorithm.digest(above + public.name())


def signer_name(key: Public, parent: "Public | bytes | Hierarchy") -> bytes:
    """Return the Qualified Name that a quote by `key` must carry.

    `parent` is the public area of a primary key of the endorsement hierarchy (the EK), the Qualified Name of any other
    parent, or the hierarchy itself if `key` is a primary key.
    """
    above = qualified_name(parent, Hierarchy.ENDORSEMENT) if isinstance(parent, Public) else parent
    return qualified_name(key, above)
