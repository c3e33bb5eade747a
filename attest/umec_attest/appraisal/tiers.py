"""Claims of AR4SI (draft-ietf-rats-ar4si): which of them evidence says something about, and which finding is of which.

| claim             | affirming, if nothing contradicts                                                             |
|-------------------|-----------------------------------------------------------------------------------------------|
| instance-identity | 2: the quote is by the AK of this node, or nothing would have been appraised                  |
| configuration     | 2: firmware configuration and Secure Boot state are those of the reference set                |
| executables       | 3: what was started during the boot is known; 2: after it, too (every file measured is known) |
| file-system       | 2: every file that the kernel measured is known; 0 without runtime measurements               |
| hardware          | 2: firmware of the reference set, a TPM that did not go back in time                          |
| runtime-opaque    | 0: a TPM says nothing about the isolation of memory                                           |
| storage-opaque    | 0: nor about the encryption of what is stored                                                 |
| sourced-data      | 0: nor about where data came from                                                             |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from umec_attest.bootlog.findings import Finding
from umec_attest.findings import Tier, tier_of

__all__ = ["CLAIM_OF_PCR", "JudgedFinding", "trust_vector"]

_APPROVED_BOOT: Final = 3
"""Of the claim "executables": only known ones were loaded during the boot. 2 says so of the time after it as well."""

CLAIM_OF_PCR: Final = {0: "hardware", 2: "hardware", 1: "configuration", 3: "configuration", 5: "configuration"} | {
    6: "configuration",
    7: "configuration",
}
"""Firmware is hardware to whom runs on it; every PCR that is not here holds executables, or what steers them."""


@dataclass(frozen=True, slots=True)
class JudgedFinding:
    """A finding, and the AR4SI claim that it is about."""

    finding: Finding
    claim: str

    @property
    def tier(self) -> Tier:
        """The tier that this finding alone puts its claim into."""
        return tier_of(self.finding.id)


def trust_vector(judged: Iterable[JudgedFinding], *, runtime: bool) -> Mapping[str, int]:
    """Return all eight claims, each at the worst tier of its findings; `runtime`: what ran since was judged."""
    return _vector(tuple((item.claim, item.tier) for item in judged), runtime)


@lru_cache(maxsize=256)
def _vector(found: tuple[tuple[str, Tier], ...], runtime: bool) -> Mapping[str, int]:  # noqa: FBT001 - a key of the cache
    """It is the same for all nodes that are found the same."""
    known_since = runtime and not any(claim == "file-system" for claim, _ in found)
    vector: dict[str, int] = {
        "instance-identity": Tier.AFFIRMING,
        "configuration": Tier.AFFIRMING,
        "executables": Tier.AFFIRMING if known_since else _APPROVED_BOOT,
        "file-system": Tier.AFFIRMING if known_since else Tier.NONE,
        "hardware": Tier.AFFIRMING,
        "runtime-opaque": Tier.NONE,
        "storage-opaque": Tier.NONE,
        "sourced-data": Tier.NONE,
    }
    for claim, tier in found:
        vector[claim] = max(vector[claim], tier)
    return MappingProxyType({claim: int(value) for claim, value in vector.items()})
