"""The program that keeps the disk of a node as root (`umec_images.update.keeper`), as the agent speaks to it.

What it says of the update it writes to `update.json`; what it is asked goes through `update.sock`, one request a
connection. It believes nothing of what it gets: this hands over bytes.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from umec_attest.agent.errors import AnswerInvalid
from umec_attest.agent.fields import FieldInvalid, Fields, read_object
from umec_core.remote import RemoteRefused, RemoteUnavailable

__all__ = ["KeeperStatus", "Parts", "read_status", "take", "try_taken"]

STATUS: Final = "update.json"
SOCKET: Final = "update.sock"
MAX_STATUS: Final = 16 * 1024
MAX_TEXT: Final = 1024
ANSWER_SECONDS: Final = 300.0
"""The keeper reads a whole slot back, on an eMMC, before it answers."""

Parts = Callable[[str, int], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""(name, bytes of it) -> a part of the image."""


@dataclass(frozen=True, slots=True)
class KeeperStatus:
    """What root says of the update.

    `kernel` is the SHA-256 (hex) of the kernel image that the node starts; `manifest` and `attempt` are of the image
    that the update is about, None where there was none. `code` says why the last one failed, or why none is possible.
    """

    image: str | None
    running: int | None
    confirmed: int | None
    kernel: str | None
    phase: str | None
    version: int | None
    manifest: str | None
    attempt: int
    code: str | None
    detail: str

    @classmethod
    def read(cls, fields: Fields) -> "KeeperStatus":
        """Return it; raises FieldInvalid."""
        running, confirmed = fields.optional("running", fields.inside), fields.optional("confirmed", fields.inside)
        update = fields.optional("update", fields.inside)
        return cls(
            image=fields.optional("image", lambda name: fields.text(name, longest=63)),
            running=None if running is None else running.integer("version"),
            confirmed=None if confirmed is None else confirmed.integer("version"),
            kernel=None if confirmed is None else confirmed.text("kernel", longest=64),
            phase=fields.optional("phase", lambda name: fields.text(name, longest=64)),
            version=None if update is None else update.integer("version"),
            manifest=None if update is None else update.text("manifest", longest=64),
            attempt=0 if update is None else update.integer("attempt"),
            code=fields.optional("code", lambda name: fields.text(name, longest=64)),
            detail=fields.text("detail", longest=MAX_TEXT),
        )


def read_status(folder: Path) -> KeeperStatus | None:
    """Return what the keeper says, or None where there is none. Raises AnswerInvalid."""
    try:
        with (folder / STATUS).open("rb") as file:
            content = file.read(MAX_STATUS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnswerInvalid(f"what the keeper tells cannot be read: {error.strerror}") from error
    try:
        return KeeperStatus.read(read_object(content))
    except FieldInvalid as error:
        raise AnswerInvalid(f"the keeper tells otherwise than expected, see: {error.place}") from error


async def take(folder: Path, *, manifest: str, size: int, attempt: int, parts: Parts) -> str:
    """Hand an image over, part by part, as the keeper wants them; returns the phase of the update.

    Raises RemoteRefused with the keeper's code, RemoteUnavailable, AnswerInvalid, and what getting the parts raises.
    """
    request = {"op": "take", "manifest": manifest, "size": size, "attempt": attempt}
    async with _connected(folder, request) as (reader, writer):
        said = await _hand_over(reader, writer, parts, "manifest.json", size)
        while said.get("want") is not None:
            match said:
                case {"want": str(name), "size": int(wanted)} if wanted >= 0:
                    said = await _hand_over(reader, writer, parts, name, wanted)
                case _:
                    raise AnswerInvalid("the keeper wants a part without a name or a size")
        return str(said.get("phase"))


async def try_taken(folder: Path, manifest: str) -> None:
    """Have the machine restart into the image that was taken. Raises RemoteRefused, RemoteUnavailable."""
    async with _connected(folder, {"op": "try", "manifest": manifest}) as (reader, _):
        await _answer(reader.readline())


@contextlib.asynccontextmanager
async def _connected(
    folder: Path, request: dict[str, Any]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await asyncio.open_unix_connection(folder / SOCKET)
    except OSError as error:
        raise RemoteUnavailable(f"nobody keeps this node's disk: {error}") from error
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        yield reader, writer
    finally:
        writer.transport.abort()


async def _hand_over(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parts: Parts, name: str, size: int
) -> dict[str, Any]:
    """Send a part; a refusal may come before its end."""
    line = asyncio.ensure_future(reader.readline())
    try:
        async with parts(name, size) as pieces:
            async for piece in pieces:
                writer.write(piece)
                with contextlib.suppress(OSError):
                    await writer.drain()
                if line.done():
                    break
        return await _answer(line)
    finally:
        line.cancel()


async def _answer(line: Awaitable[bytes]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            said = json.loads(await line)
    except (OSError, ValueError, RecursionError) as error:
        raise RemoteUnavailable("the keeper of this node's disk does not answer") from error
    if not isinstance(said, dict) or said.get("ok") is not True:
        told = said if isinstance(said, dict) else {}
        raise RemoteRefused(
            str(told.get("code")), str(told.get("detail"))[:MAX_TEXT], status=422, advice=told.get("advice")
        )
    return said
