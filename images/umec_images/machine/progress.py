"""How far a boot came, and what ended it: read from the lines of its console.

What a console says is no evidence: a machine under an attacker says what it likes. It is for people and tests; a
verifier believes a TPM's quote.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final

__all__ = ["End", "Progress", "Stage"]

NODE: Final = "umec-node: "
"""Before everything that the node's own programs say on the console."""
PRINTED: Final = (*range(10), 11, 12, 13, 14, 15)
"""All but PCR 10, which grows with every file that is opened."""


@unique
class Stage(Enum):
    """Stages of a boot, in their order."""

    POWER = "power"
    FIRMWARE = "firmware"
    """It has found what it shall start."""
    STUB = "stub"
    """The firmware has started the unified kernel image: its signature held, or nobody asked for one."""
    KERNEL = "kernel"
    ROOT = "root"
    """The root file system is open, and its first program runs."""
    AGENT = "agent"
    """The node's agent runs, or would if it had somebody to enrol with."""

    @property
    def place(self) -> int:
        """Its place in the order."""
        return list(Stage).index(self)


@unique
class End(Enum):
    """What keeps a boot from going on."""

    SIGNATURE = "signature"
    """The firmware has refused the image: Secure Boot."""
    NOTHING = "nothing"
    """The firmware has found nothing that it could start."""
    VERITY = "verity"
    """A block of the root file system is not the one that the root hash promises."""
    PANIC = "panic"


_STAGES: Final = (
    (re.compile(r"BdsDxe: loading Boot"), Stage.FIRMWARE),
    (re.compile(r"BdsDxe: starting Boot"), Stage.STUB),
    (re.compile(r"EFI stub: |\] Linux version "), Stage.KERNEL),
    (re.compile(rf"{NODE}root"), Stage.ROOT),
    (re.compile(rf"{NODE}agent"), Stage.AGENT),
)
_ENDS: Final = (
    (re.compile(r"BdsDxe: failed to load Boot.*: (?:Access Denied|Security Violation)"), End.SIGNATURE),
    (re.compile(r"BdsDxe: No bootable option or device was found"), End.NOTHING),
    (re.compile(r"device-mapper: verity: .* is corrupted"), End.VERITY),
    (re.compile(r"Kernel panic - not syncing"), End.PANIC),
)
_PCR: Final = re.compile(rf"{NODE}pcr ([0-9]{{1,2}}) ([0-9a-fA-F]{{64}})$")


@dataclass(slots=True)
class Progress:
    """Give it the lines in their order."""

    stage: Stage = Stage.POWER
    end: End | None = None
    """The first thing that kept it from going on."""
    said: str | None = None
    """The line by which it was known."""
    pcrs: dict[int, bytes] = field(default_factory=dict)
    """PCR values of the SHA-256 bank, as the node printed them."""

    @property
    def measured(self) -> bool:
        """Whether the node has printed the PCRs that firmware, stub and kernel measure into."""
        return set(PRINTED) <= set(self.pcrs)

    def line(self, text: str) -> Stage | None:
        """Take a line; return the stage that it shows for the first time."""
        value = _PCR.search(text)
        if value is not None:
            self.pcrs[int(value[1])] = bytes.fromhex(value[2])
            return None
        if self.end is None:
            self.end = next((end for pattern, end in _ENDS if pattern.search(text)), None)
            self.said = None if self.end is None else text
        shown = next((stage for pattern, stage in _STAGES if pattern.search(text)), None)
        if shown is None or shown.place <= self.stage.place:
            return None
        self.stage = shown
        return shown
