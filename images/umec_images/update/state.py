"""What an update has come to, kept on the EFI partition in two copies: the newest that is whole counts.

A copy is one sector: a JSON object, zeros, and the SHA-256 of both. The older copy is the one that is overwritten.
Nothing is believed for it: which image is confirmed, the EFI partition itself says (`umec_images.update.disk`), and
what a node really started, its TPM says.
"""

import hashlib
from collections.abc import Sequence
from enum import Enum, unique
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_images.update.device import SECTOR

__all__ = ["Phase", "Record", "decode", "encode", "newest"]

DIGEST: Final = hashlib.sha256().digest_size


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


class Record(BaseModel):
    """An update: `image`, `version` and `manifest` (SHA-256, hex) are those of the image that it is about."""

    # What another version of this writes beside it is ignored: a node that falls back has an older one.
    model_config = ConfigDict(extra="ignore", frozen=True)

    generation: Annotated[int, Field(ge=0, lt=2**63)] = 0
    phase: Phase = Phase.NONE
    image: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,63}$")] = ""
    version: Annotated[int, Field(ge=0, lt=2**31)] = 0
    manifest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


def encode(record: Record) -> bytes:
    """Return a copy."""
    body = record.model_dump_json().encode().ljust(SECTOR - DIGEST, b"\0")
    return body + hashlib.sha256(body).digest()


def decode(copy: bytes) -> Record | None:
    """Return the record in a copy, or None where it is not whole: never written, or torn."""
    body, digest = copy[:-DIGEST], copy[-DIGEST:]
    if len(copy) != SECTOR or hashlib.sha256(body).digest() != digest:
        return None
    try:
        return Record.model_validate_json(body.rstrip(b"\0"))
    except ValidationError:
        return None


def newest(copies: Sequence[bytes]) -> tuple[Record, int]:
    """Return the record that counts, and which copy the next one takes the place of."""
    found = [(record, place) for place, copy in enumerate(copies) if (record := decode(copy)) is not None]
    if not found:
        return Record(), 0
    record, place = max(found, key=lambda each: each[0].generation)
    return record, 1 - place
