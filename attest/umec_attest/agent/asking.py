"""How others on the node ask the running agent: a line to the socket in its state directory, and one back.

Apart from `control`, so that who asks needs neither the agent nor a TPM library.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from umec_attest.agent.errors import AgentStateInvalid, AnswerInvalid
from umec_attest.agent.requests import Request
from umec_core.remote import RemoteRefused

__all__ = ["MAX_LINE", "SOCKET_NAME", "ask", "near"]

SOCKET_NAME: Final = "agent.sock"
MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes; a request with a body of one megabyte fits."""
ASK_SECONDS: Final = 60.0


async def ask(directory: Path, request: Request) -> Mapping[str, Any] | None:
    """Ask the running agent; None if none runs. Raises RemoteRefused with the agent's code."""
    line = json.dumps(request.to_json()).encode() + b"\n"
    try:
        with near(directory) as there:
            reader, writer = await asyncio.open_unix_connection(there / SOCKET_NAME, limit=MAX_LINE)
    except OSError:
        return None
    try:
        async with asyncio.timeout(ASK_SECONDS):
            writer.write(line)
            said = json.loads(await reader.readline())
        if not isinstance(said, dict):
            raise ValueError("this is no answer")  # noqa: TRY004, TRY301 - of the agent, not of a caller
    except (OSError, ValueError, TimeoutError) as error:
        raise AnswerInvalid("the running agent did not answer") from error
    finally:
        writer.close()
    if said.get("ok") is not True:
        raise RemoteRefused(
            str(said.get("code")),
            str(said.get("detail")),
            status=int(said.get("status", 422)),
            advice=said.get("advice"),
        )
    return said


@contextlib.contextmanager
def near(directory: Path) -> Iterator[Path]:
    """A short name for the directory: the path of a UNIX socket has at most 107 bytes."""
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise AgentStateInvalid(f"there is no state directory {directory}", advice="umec node enroll") from error
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
