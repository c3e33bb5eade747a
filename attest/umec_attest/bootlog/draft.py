"""What is collected while facts are read: measurements with the part of their data that the digest proves, findings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from umec_attest.bootlog.coverage import coverable_parts
from umec_attest.bootlog.event_types import EV_IPL
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.parse import RawEvent
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["Draft", "Measured", "measure"]


_STUB_PCRS: Final = frozenset({8, 12})
"""Into which systemd's loader and stub measure kernel command lines; older ones into 8."""


class Measured(NamedTuple):
    """A measurement: its digest in the bank that counts, and the bytes that hash to it, None where that is not known.

    `type` and `data` are what the log claims; `forged` where events of this type always hash their data, and this did
    not.
    """

    pcr: int
    type: int
    digest: bytes
    data: bytes
    proven: bytes | None
    forged: bool


@dataclass(slots=True)
class Draft:
    """Findings as they are collected, and the PCRs that they are about. `name` says how a PCR is called."""

    algorithm: HashAlgorithm
    name: Callable[[int], str]
    findings: list[Finding] = field(default_factory=list)
    spoiled: set[int] = field(default_factory=set)

    def find(self, identifier: str, pcr: int, detail: str) -> None:
        """Add a finding about a PCR, of which nothing is believed from now on that could be otherwise."""
        self.findings.append(Finding(identifier, f"{self.name(pcr)}: {detail}"))
        self.spoiled.add(pcr)


def measure(event: RawEvent, algorithm: HashAlgorithm, pcr: int) -> Measured:
    """Return an event as a measurement of that bank, filed under that PCR."""
    digest, data, hash_of = event.digest(algorithm) or b"", event.data, algorithm.constructor
    parts = coverable_parts(event)
    proven: bytes | None = None
    for part in parts:
        if hash_of(data[part]).digest() == digest:
            proven = data[part]
    if not parts and event.type == EV_IPL and pcr in _STUB_PCRS:
        proven = _text_of_stub(data, digest, algorithm)
    return Measured(pcr, event.type, digest, data, proven, bool(parts) and proven is None)


def _text_of_stub(data: bytes, digest: bytes, algorithm: HashAlgorithm) -> bytes | None:
    """Match what systemd's loader and stub say and hash: older ones leave out the last byte of the UTF-16 NUL."""
    for text in (data, data + b"\0"):
        if algorithm.digest(text) == digest:
            return text
    return None
