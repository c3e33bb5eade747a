"""What a relay and the platform say to each other, beside the messages of netd, which are carried as they are.

    POST /platform/v1/relay                               begin: `Opened`; an earlier relay of this node ends
    GET  /platform/v1/relay/SESSION/requests?after=SEQ    the requests after that one, or none after a while: `Handed`
    POST /platform/v1/relay/SESSION/answers               one answer of netd (`Reply`), deflated

A relay that lost an answer asks with the same `after` once more, and is handed the same again: what it has had it knows
by its number, so netd sees each request once.
"""

import zlib
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from umec_platform.netd.messages import MAX_LINE
from umec_platform.netd.names import Digest, Repository, RequestId

__all__ = ["MAX_ANSWER", "RELAY", "WAIT", "Handed", "ImagePull", "Opened", "Request", "deflate", "inflate"]

RELAY: Final = "/platform/v1/relay"
MAX_ANSWER: Final = 1024 * 1024
"""Octets of an answer as it is sent, deflated: what every endpoint takes. Refused rules by the thousand fit in."""

WAIT: Final = 10.0
"""Seconds that an ask for requests waits: as long as a standing feed may be silent."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Opened(_Wire):
    """A session of a relay: where its node's images are fetched, and how long an ask waits."""

    session: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    registry: Annotated[str, Field(pattern=r"^https://[^/?#\s]+$")]
    wait_seconds: Annotated[float, Field(gt=0, le=60)]


class Request(_Wire):
    """One request: its place in the session, and netd's own line."""

    seq: Annotated[int, Field(ge=1)]
    line: Annotated[str, Field(max_length=MAX_LINE)]


class Handed(_Wire):
    """What a relay is to carry out now, in this order of beginning."""

    requests: list[Request]


class ImagePull(_Wire):
    """Have the relay itself fetch an image, before netd is asked to start it. Result: `{folder}`."""

    id: RequestId
    op: Literal["image.pull"] = "image.pull"
    repository: Repository
    digest: Digest


def deflate(line: bytes) -> bytes:
    """Return the body that carries an answer."""
    return zlib.compress(line, 1)


def inflate(body: bytes) -> bytes:
    """Return the answer in a body, which is as long as a line of netd may be; raises ValueError."""
    unpacked = zlib.decompressobj()
    try:
        line = unpacked.decompress(body, MAX_LINE)
    except zlib.error as error:
        raise ValueError("it is not deflated") from error
    if not unpacked.eof or unpacked.unused_data:
        raise ValueError(f"it is cut off, followed by something, or longer than {MAX_LINE} octets")
    return line
