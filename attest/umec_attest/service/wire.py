"""What the schemas of all nouns share: strict models, identifiers, binary as base64, times."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints

from umec_core.http import MAX_BODY

__all__ = ["Blob", "Certificate", "Id", "LargeBlob", "Sha256", "WireModel", "encode", "instant"]

MAX_BLOB: Final = 4096
"""Bytes of a TPM structure: the largest, a TPMT_PUBLIC of RSA-4096, has some 600."""

MAX_CERTIFICATE: Final = 16 * 1024
MAX_REST: Final = 32 * 1024
"""Bytes of a body beside a boot log in base64: quote, signature, challenge and PCR values are 20 KB at most."""
MAX_LARGE: Final = (MAX_BODY - MAX_REST) // 4 * 3
"""Bytes of a boot log: as many as a body takes. Real ones have up to some 100 KB."""

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class WireModel(BaseModel):
    """A body of our own: an unknown member is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _decoder(limit: int) -> BeforeValidator:
    def decode(value: Any) -> bytes:  # noqa: ANN401 - anything may come in
        if not isinstance(value, str):
            raise ValueError("expected a text in base64")  # noqa: TRY004 - of pydantic's kind
        try:
            content = base64.b64decode(value.encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            raise ValueError("not standard base64") from error
        if len(content) > limit:
            raise ValueError(f"base64 of at most {limit} bytes")
        return content

    return BeforeValidator(decode)


Blob = Annotated[bytes, _decoder(MAX_BLOB)]
Certificate = Annotated[bytes, _decoder(MAX_CERTIFICATE)]
LargeBlob = Annotated[bytes, _decoder(MAX_LARGE)]


def encode(data: bytes) -> str:
    """Return standard base64."""
    return base64.b64encode(data).decode()


def instant(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
