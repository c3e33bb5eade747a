"""What an update has come to, kept on the EFI partition in two copies: the newest that is whole counts.

A copy is one sector: a JSON object, zeros, and the SHA-256 of both. The older copy is the one that is overwritten.
Nothing is believed for it: which image is confirmed, the EFI partition itself says (`umec_images.update.disk`), and
what a node really started, its TPM says.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from umec_images.update.device import SECTOR

__all__ = ["Phase", "Record", "decode", "encode", "newest"]

DIGEST: Final = hashlib.sha256().digest_size
_IMAGE: Final = re.compile(r"[a-z0-9-]{0,63}")
_MANIFEST: Final = re.compile(r"(?:[0-9a-f]{64})?")
_WHY: Final = re.compile(r"[a-z-]{0,40}")


@unique
class Phase(Enum):
    """What an update has come to."""

    NONE = "none"
    """No update goes on: the last one, if there was any, is confirmed."""
    WRITING = "writing"
    """What is in the other slot counts for nothing."""
    STAGED = "staged"
    """The image is in the other slot, whole."""
    TRIAL = "trial"
    """The firmware has been asked to start it, once."""
    FAILED = "failed"
    """It was tried, and the node fell back."""


@dataclass(frozen=True, slots=True)
class Record:
    """An update: `image`, `version` and `manifest` (SHA-256, hex) are those of the image that it is about.

    `attempt` is the number of the operator's order, which rises when they want it tried again; `why` is the code of
    what ended a trial that the image itself left. Raises ValueError where a member is none.
    """

    generation: int = 0
    phase: Phase = Phase.NONE
    image: str = ""
    version: int = 0
    manifest: str = ""
    attempt: int = 0
    why: str = ""

    def __post_init__(self) -> None:
        numbers = ((self.generation, 2**63), (self.version, 2**31), (self.attempt, 2**31))
        texts = ((self.image, _IMAGE), (self.manifest, _MANIFEST), (self.why, _WHY))
        if not all(type(number) is int and 0 <= number < limit for number, limit in numbers):
            raise ValueError("a number of a record is out of its bounds")
        if not all(isinstance(text, str) and pattern.fullmatch(text) for text, pattern in texts):
            raise ValueError("a text of a record is none")


def encode(record: Record) -> bytes:
    """Return a copy."""
    members = {name: getattr(record, name) for name in Record.__slots__} | {"phase": record.phase.value}
    body = json.dumps(members, separators=(",", ":")).encode().ljust(SECTOR - DIGEST, b"\0")
    return body + hashlib.sha256(body).digest()


def decode(copy: bytes) -> Record | None:
    """Return the record in a copy, or None where it is not whole: never written, or torn.

    What another version of this writes beside it is ignored: a node that falls back has an older one.
    """
    body, digest = copy[:-DIGEST], copy[-DIGEST:]
    if len(copy) != SECTOR or hashlib.sha256(body).digest() != digest:
        return None
    try:
        said = json.loads(body.rstrip(b"\0"))
        known = {name: said[name] for name in Record.__slots__ if name in said}
        return Record(**known | {"phase": Phase(said.get("phase", Phase.NONE.value))})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def newest(copies: Sequence[bytes]) -> tuple[Record, int]:
    """Return the record that counts, and which copy the next one takes the place of."""
    found = [(record, place) for place, copy in enumerate(copies) if (record := decode(copy)) is not None]
    if not found:
        return Record(), 0
    record, place = max(found, key=lambda each: each[0].generation)
    return record, 1 - place
