"""The agent's door on the node itself: a UNIX socket in the state directory, which only its owner can reach.

One JSON object a line, both ways: {"op": "status"}, {"op": "rotate"}, {"op": "token", "resource", "scope"},
{"op": "call", "method", "url", "resource", "scope", "content"?, "headers"?}, {"op": "start", "tenant", "instance",
"image", "decision"}. Content is base64. An answer has `ok`, and
`code`, `detail`, `advice` where it is false. After a good answer to {"op": "door", "host", "port"} the socket is a
connection to that server (`doors`).
"""

import asyncio
import base64
import contextlib
import fcntl
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from umec_attest.agent.asking import MAX_LINE, SOCKET_NAME, ask, near
from umec_attest.agent.doors import Door
from umec_attest.agent.errors import AgentBusy
from umec_attest.agent.loop import Agent
from umec_attest.agent.requests import Call, OpenDoor, Request, Rotate, Start, Status, Token, read_request
from umec_attest.agent.transport import Answer
from umec_core.errors import Invalid, UmecError

__all__ = ["answer", "ask", "carry_out", "only_agent", "serve_control"]

LOCK_NAME: Final = "agent.lock"


@contextlib.contextmanager
def only_agent(directory: Path) -> Iterator[None]:
    """Hold the state directory: there is one agent on it at a time. Raises AgentBusy."""
    with (directory / LOCK_NAME).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AgentBusy(f"an agent already runs on {directory}") from error
        yield


@contextlib.asynccontextmanager
async def serve_control(agent: Agent, directory: Path) -> AsyncIterator[None]:
    """Answer at the socket while the context lasts; nobody else may hold the directory."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError, asyncio.LimitOverrunError):
            line = await reader.readline()
            door, said = await _open_door(agent, line)
            with contextlib.nullcontext() if door is None else contextlib.closing(door):
                writer.write(json.dumps(said or await answer(agent, line)).encode() + b"\n")
                await writer.drain()
                if door is not None:
                    await door.join((reader, writer))
        writer.close()

    with near(directory) as there:
        (directory / SOCKET_NAME).unlink(missing_ok=True)
        server = await asyncio.start_unix_server(connected, there / SOCKET_NAME, limit=MAX_LINE)
    (directory / SOCKET_NAME).chmod(0o600)
    try:
        yield
    finally:
        server.close()
        (directory / SOCKET_NAME).unlink(missing_ok=True)


async def answer(agent: Agent, line: bytes) -> dict[str, Any]:
    """Do what a line asks for; a refusal is an answer too."""
    try:
        return {"ok": True, **await carry_out(agent, read_request(line))}
    except UmecError as error:
        return _refused(error)


async def carry_out(agent: Agent, request: Request) -> dict[str, Any]:
    """Do what is asked for. Raises what the agent raises."""
    match request:
        case Status():
            return {"status": dict(agent.status())}
        case Token():
            text, expires = await agent.token(request.resource, request.scope)
            return {"token": text, "expires_at": expires.isoformat()}
        case OpenDoor():
            raise Invalid("a door opens at the socket of a running agent only")
        case Start():
            return {"number": await agent.measure_start(request)}
        case Rotate():
            await agent.rotate()
            result = await agent.attest()
            if result.ear is not None:
                await agent.settle()
            return {"standing": result.standing, "generation": result.generation}
        case Call():
            response = await agent.call(
                request.method,
                request.url,
                resource=request.resource,
                scope=request.scope,
                content=request.content,
                headers=request.headers,
            )
            return _response(response)


async def _open_door(agent: Agent, line: bytes) -> tuple[Door | None, dict[str, Any] | None]:
    """Open a door if the line asks for one: the door and the answer, or what refused it; else nothing."""
    try:
        request = read_request(line)
        if not isinstance(request, OpenDoor):
            return None, None
        return await agent.door(request.host, request.port), {"ok": True}
    except UmecError as error:
        return None, _refused(error)


def _refused(error: UmecError) -> dict[str, Any]:
    refused: dict[str, Any] = {"ok": False, "code": error.code, "detail": error.detail}
    return refused if error.advice is None else {**refused, "advice": error.advice}


def _response(response: Answer) -> dict[str, Any]:
    return {
        "status": response.status,
        "content_type": response.headers.get("content-type", ""),
        "content": base64.b64encode(response.content).decode(),
    }
