"""What an endpoint does not read is refused, and of a refusal and an answer only one is sent."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import uvloop
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from umec_core.errors import Kind, UmecError
from umec_core.http import create_app, judges_query, plain_route, require_json
from umec_core.protocol import Protocol, _Joined
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


@router.get("/silent")
async def silent() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        await asyncio.sleep(3600)
        yield b"never"

    return StreamingResponse(pieces())


class PlainConflict(UmecError):
    code = "plain-conflict"
    kind = Kind.CONFLICT


async def answered(request: Request) -> JSONResponse:
    match request.url.path:
        case "/plain/conflict":
            raise PlainConflict("not now")
        case "/plain/missing":
            raise HTTPException(404)
        case "/plain/broken":
            raise RuntimeError("unforeseen")
    return JSONResponse({})


plain = APIRouter()
plain.routes += [plain_route("POST", f"/plain/{name}", answered) for name in ("good", "conflict", "missing", "broken")]


class Recorded:
    """A transport that keeps what is written to it."""

    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


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


def test_the_head_of_an_answer_is_not_held_back_for_a_body_that_is_still_to_come(tmp_path: Path) -> None:
    async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST % b"/silent")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    talking(tmp_path, body)


def test_head_and_body_are_sent_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    made = Protocol.connection_made

    def connection_made(self: Protocol, transport: asyncio.Transport) -> None:
        made(self, Recorded(transport, written))  # type: ignore[arg-type]

    monkeypatch.setattr(Protocol, "connection_made", connection_made)

    async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(REQUEST % b"/list")
            await reader.readuntil(b'{"limit":10}')
        assert len(written) == 2
        assert all(one.startswith(b"HTTP/1.1 200 ") and one.endswith(b'{"limit":10}') for one in written)

    talking(tmp_path, body)


def test_what_is_there_when_serving_begins_is_no_matter_of_the_garbage_collector_until_it_ends(tmp_path: Path) -> None:
    async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST % b"/list")
        await reader.readuntil(b'{"limit":10}')
        assert gc.get_freeze_count() > 1000

    talking(tmp_path, body)
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/plain/good", 200, None),
        ("GET", "/plain/good", 405, "method-not-allowed"),
        ("POST", "/plain/conflict", 409, "plain-conflict"),
        ("POST", "/plain/missing", 404, "not-found"),
        ("POST", "/plain/broken", 500, "internal-error"),
        ("POST", "/plain/none", 404, "not-found"),
    ],
)
def test_a_plain_route_is_answered_as_any_other(method: str, path: str, status: int, code: str | None) -> None:
    async def body() -> None:
        transport = httpx.ASGITransport(create_app("strict", [plain]))
        async with httpx.AsyncClient(transport=transport, base_url="https://here") as client:
            answer = await client.request(method, path)
        assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
        assert "x-request-id" in answer.headers

    asyncio.run(body())


def test_an_answer_knows_that_its_connection_ends() -> None:
    """Else `100 Continue` would be written to a client that is gone."""

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            _, writer = await asyncio.open_connection(sock=ours)
            cycle: Any = SimpleNamespace(response_started=False)
            joined = _Joined(cast("asyncio.Transport", writer.transport), cycle, asyncio.get_running_loop())
            assert not joined.is_closing()
            joined.close()
            assert joined.is_closing()
            await writer.wait_closed()

    asyncio.run(scenario())
