"""What a boot measures into a PCR, stage by stage: with it, a finding says which part of a boot is another one.

    {"11": [{"stage": "kernel", "sha256": hex}, …]}

All measurements of the SHA-256 bank, in their order: together they give a value that the set expects of that PCR, or
the set is refused. They decide nothing; the value does.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field

from umec_attest.errors import ReferenceInvalid
from umec_attest.reference.values import AllowedValues, Wire, parse_index
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["Stage", "Stages", "WireStages", "extend_all", "parse_stages", "render_stages"]

MAX_STAGES: Final = 64
"""Measurements of one PCR; a real boot makes some twenty into its busiest one."""
_BANK: Final = HashAlgorithm.SHA256


class Stage(NamedTuple):
    """One measurement: what it is of, in words for an operator, and its SHA-256."""

    name: str
    digest: bytes


Stages = Mapping[int, Sequence[Stage]]
"""PCR -> its measurements."""


class WireStage(Wire):
    """A measurement in a predicate."""

    stage: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+()/-]{0,62}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


WireStages = dict[str, Annotated[list[WireStage], Field(max_length=MAX_STAGES)]]


def extend_all(digests: Iterable[bytes]) -> bytes:
    """Return a PCR of the SHA-256 bank that was extended with these digests from zero."""
    value = bytes(_BANK.digest_size)
    for digest in digests:
        value = hashlib.sha256(value + digest).digest()
    return value


def parse_stages(wire: Mapping[str, Sequence[WireStage]], pcrs: AllowedValues) -> Stages:
    """Return the stages of a predicate that expects these values.

    Raises `ReferenceInvalid` where the stages of a PCR do not give a value that is expected of it.
    """
    stages = {
        parse_index(pcr): tuple(Stage(each.stage, bytes.fromhex(each.sha256)) for each in listed)
        for pcr, listed in wire.items()
    }
    for pcr, listed in stages.items():
        if extend_all(stage.digest for stage in listed) not in pcrs.get(_BANK, {}).get(pcr, ()):
            raise ReferenceInvalid(f"the stages of PCR {pcr} do not give a value that is expected of it")
    return MappingProxyType(stages)


def render_stages(stages: Stages) -> dict[str, list[dict[str, Any]]]:
    """Return stages as `parse_stages` reads them."""
    return {
        str(pcr): [{"stage": stage.name, "sha256": stage.digest.hex()} for stage in listed]
        for pcr, listed in sorted(stages.items())
    }
