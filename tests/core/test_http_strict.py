"""What an endpoint does not read is refused, and of a refusal and an answer only one is sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import uvloop
from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from umec_core.http import create_app, judges_query, require_json
from umec_core.server import Listener, serve

REQUEST = b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n"
GARBAGE = b"\x00\x01 garbage\r\n\r\n"

router = APIRouter()


@router.get("/list")
async def listed(limit: int = 10) -> dict[str, int]:
    return {"limit": limit}


@router.get("/own", dependencies=[Depends(judges_query)])
async def own() -> dict[str, bool]:
    return {"own": True}


@router.post("/raw", dependencies=[Depends(require_json)])
async def raw() -> dict[str, bool]:
    return {"raw": True}


@router.get("/never")
async def never() -> None:
    await asyncio.sleep(3600)


@router.get("/begun")
async def begun() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.sleep(3600)

    return StreamingResponse(pieces())


@pytest.mark.parametrize(
    ("method", "path", "kind", "status", "code"),
    [
        ("GET", "/list?limit=5", None, 200, None),
        ("GET", "/list?limit=5&limit=6", None, 400, "query-invalid"),
        ("GET", "/list?limits=5", None, 400, "query-invalid"),
        ("GET", "/own?anything=5", None, 200, None),
        ("POST", "/raw", "application/json", 200, None),
        ("POST", "/raw", "Application/JSON; charset=utf-8", 200, None),
        ("POST", "/raw", "text/plain", 400, "content-type-wrong"),
        ("POST", "/raw", None, 400, "content-type-wrong"),
    ],
)
def test_what_is_not_read_is_refused(method: str, path: str, kind: str | None, status: int, code: str | None) -> None:
    async def body() -> None:
        transport = httpx.ASGITransport(create_app("strict", [router]))
        async with httpx.AsyncClient(transport=transport, base_url="https://here") as client:
            headers = {} if kind is None else {"content-type": kind}
            answer = await client.request(method, path, content=b"{}" if method == "POST" else None, headers=headers)
        assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text

    asyncio.run(body())


def talking(folder: Path, body: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    """Talk to a server over a connection of its own."""

    async def opened() -> None:
        stop, listener = asyncio.Event(), Listener(create_app("strict", [router]), unix=folder / "s")
        bound = listener.bind()
        server = asyncio.create_task(serve([listener], stop, sockets=[bound]))
        reader, writer = await asyncio.open_unix_connection(str(folder / "s"))
        try:
            async with asyncio.timeout(10):
                await body(reader, writer)
        finally:
            writer.close()
            stop.set()
            server.cancel()
            await asyncio.wait([server])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(opened())


def test_garbage_alone_is_answered(tmp_path: Path) -> None:
    async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GARBAGE)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    talking(tmp_path, body)


def test_an_answer_that_has_begun_is_not_followed_by_a_refusal(tmp_path: Path) -> None:
    async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST % b"/begun")
        answer = await reader.readuntil(b"begun")
        writer.write(GARBAGE)
        answer += await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1") == 1

    talking(tmp_path, body)


def test_a_refusal_is_not_taken_for_the_answer_to_an_earlier_request(tmp_path: Path) -> None:
    async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST % b"/never" + REQUEST % b"/list" + GARBAGE)
        assert await reader.read() == b""

    talking(tmp_path, body)
