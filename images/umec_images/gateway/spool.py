"""Where blobs wait while they are hashed and handed out: unnamed files, which together have a bounded size."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from typing import Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from umec_images.gateway.errors import RegistryBusy

__all__ = ["CHUNK", "SMALL", "BlobResponse", "Room", "StoredBlob"]

log = structlog.get_logger("umec.images")

CHUNK: Final = 256 * 1024

SMALL: Final = 4 * 1024 * 1024
"""Bytes of a blob that are kept in memory while it is hashed; the rest goes to an unnamed file."""
PATIENCE: Final = 60.0
"""Seconds that a reader waits for room; clients of registries try again after an answer of 503."""
STALL: Final = 60.0
"""Seconds that a reader may take for one chunk: who reads slower gives the room back to others."""


class Room:
    """Bytes of disk that all spooled blobs together may take; small blobs lie in memory and take none."""

    def __init__(self, size: int, *, patience: float = PATIENCE) -> None:
        """`size` is at least that of the largest blob, or that blob is never read."""
        self._free = size
        self._patience = patience
        self._given_back = asyncio.Event()

    async def take(self, size: int) -> "StoredBlob":
        """Return an empty spool for `size` bytes once there is room. Raises RegistryBusy."""
        needed = size if size > SMALL else 0
        try:
            async with asyncio.timeout(self._patience):
                while self._free < needed:
                    self._given_back.clear()
                    await self._given_back.wait()
        except TimeoutError as error:
            raise RegistryBusy("too many large blobs are read at once", advice="Try again later.") from error
        self._free -= needed
        return StoredBlob(self, size, needed)

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self._free += size
        self._given_back.set()


class StoredBlob:
    """The content of a blob, and the room that it takes until it is closed."""

    def __init__(self, room: Room, size: int, taken: int) -> None:
        self._room, self._taken = room, taken
        self.size = size
        self.file = tempfile.SpooledTemporaryFile(max_size=SMALL)  # noqa: SIM115 - closed by close

    def close(self) -> None:
        """Remove the content; may be called again."""
        self.file.close()
        taken, self._taken = self._taken, 0
        if taken:
            self._room.give(taken)


class BlobResponse(StreamingResponse):
    """Hands a blob out, and closes it in every case: at its end, and when its reader is gone or stalls."""

    def __init__(self, blob: StoredBlob, headers: Mapping[str, str], *, stall: float = STALL) -> None:
        stated = {**headers, "Content-Length": str(blob.size)}
        super().__init__(_chunks(blob), media_type="application/octet-stream", headers=stated)
        self._blob = blob
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI)."""

        async def patiently(message: Message) -> None:
            async with asyncio.timeout(self._stall):
                await send(message)

        try:
            await super().__call__(scope, receive, patiently)
        except (TimeoutError, ClientDisconnect):
            log.warning("a blob was not read to its end", path=scope["path"])
        finally:
            self._blob.close()


async def _chunks(blob: StoredBlob) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(blob.file.read, CHUNK):
        yield chunk
