"""The agent's HTTP: what a server may do to it, and what of it is believed."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from umec_attest.agent.errors import AnswerInvalid
from umec_attest.agent.pace import LONGEST_ASKED, Pace, unless
from umec_attest.agent.transport import MAX_CONTENT, Transport
from umec_core.errors import Unavailable
from umec_core.keys import private_pem
from umec_core.remote import RemoteRefused, RemoteUnavailable, refusal

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Said: here\r\n\r\nok"


@contextlib.asynccontextmanager
async def serving(folder: Path, ca: Any, said: bytes | None) -> AsyncIterator[str]:
    """A TLS server that says the same to everybody; None: nothing at all."""
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "server.pem").write_bytes(ca.issue_server(key.public_key()).public_bytes(Encoding.PEM))
    (folder / "server.key").write_bytes(private_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await reader.readuntil(b"\r\n\r\n")
                if said is not None:
                    writer.write(said)
                    await writer.drain()
                else:
                    await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()
        while server._active_count:  # noqa: ASYNC110 - Python 3.11 does not wait for what it accepted
            await asyncio.sleep(0.01)


def exchange(folder: Path, ca: Any, said: bytes | None, *, trusted: Any = None, **options: Any) -> Any:
    async def going() -> Any:
        async with serving(folder, ca, said) as url:
            transport = Transport((trusted or ca).pem, deadline=0.5 if said is None else 15.0)
            try:
                return await transport.send("GET", url, **options)
            finally:
                await transport.close()

    return asyncio.run(going())


def test_an_answer_is_what_the_server_said(tmp_path: Path, server_ca: Any) -> None:
    answer = exchange(tmp_path, server_ca, OK)
    assert (answer.status, answer.content, answer.headers["x-said"], answer.path) == (200, b"ok", "here", "/x")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 302),
        (b"HTTP/1.1 199 Odd\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 300 Choose\r\nContent-Length: 0\r\n\r\n", 300),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 503),
    ],
)
def test_what_is_no_success_is_refused(tmp_path: Path, server_ca: Any, said: bytes, status: int | None) -> None:
    if status is None:
        with pytest.raises(RemoteUnavailable) as unavailable:  # an interim answer, and nothing behind it
            exchange(tmp_path, server_ca, said)
        assert unavailable.value.code == "remote-unavailable"
        return
    with pytest.raises(RemoteRefused) as refused:
        exchange(tmp_path, server_ca, said)
    assert (refused.value.status, refused.value.code) == (status, f"http-{status}")
    assert refused.value.retry_after == (7.0 if status == 503 else None)
    assert exchange(tmp_path, server_ca, said, check=False).status == status


@pytest.mark.parametrize("said", [b"", b"no HTTP\r\n\r\n", OK[:-1], None], ids=["closed", "garbage", "cut", "silent"])
def test_a_server_that_does_not_answer_is_unavailable(tmp_path: Path, server_ca: Any, said: bytes | None) -> None:
    with pytest.raises(RemoteUnavailable) as refused:
        exchange(tmp_path, server_ca, said)
    assert refused.value.code == "remote-unavailable"
    exchange(tmp_path, server_ca, OK)


def test_a_server_that_never_speaks_tls_is_left_by_who_is_cancelled(
    server_ca: Any, cancelled_in_a_handshake: Any
) -> None:
    """And not when the garbage is collected: a node would run out of sockets."""

    async def body() -> None:
        transport = Transport(server_ca.pem, deadline=60.0)
        try:
            await cancelled_in_a_handshake(lambda url: transport.send("GET", url))  # as its deadline does
        finally:
            await transport.close()

    asyncio.run(body())


def test_an_answer_without_end_is_not_read_to_its_end(tmp_path: Path, server_ca: Any) -> None:
    def of(size: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)

    with pytest.raises(AnswerInvalid) as refused:
        exchange(tmp_path, server_ca, of(MAX_CONTENT + 1))
    assert refused.value.code == "answer-invalid"
    assert len(exchange(tmp_path, server_ca, of(MAX_CONTENT)).content) == MAX_CONTENT


def test_another_ca_is_not_trusted(tmp_path: Path, server_ca: Any, standin: Any) -> None:
    with pytest.raises(RemoteUnavailable) as refused:
        exchange(tmp_path, server_ca, OK, trusted=standin.node_ca)
    assert refused.value.code == "remote-unavailable"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("99999999999", 86400.0),
        (None, None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
    ],
)
def test_how_long_a_server_asks_to_wait(header: str | None, seconds: float | None) -> None:
    assert refusal(503, b"[]", header).retry_after == seconds


def test_what_a_server_asks_for_comes_first_and_is_bounded() -> None:
    pace = Pace(first=1.0, longest=30.0)
    for asked, least, most in ((5.0, 5.0, 7.5), (10_000.0, LONGEST_ASKED, 1.5 * LONGEST_ASKED), (0.0, 0.1, 0.2)):
        waits = {pace.after(1, asked=asked, most=0.2) for _ in range(50)}
        assert least <= min(waits) <= max(waits) <= most
    assert max(pace.after(9, most=2.0) for _ in range(50)) == 2.0


def test_work_ends_when_the_agent_is_told_to_stop() -> None:
    async def working() -> None:
        stop, ended = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

        assert await unless(stop, asyncio.sleep(0)) is True
        with pytest.raises(RemoteUnavailable):
            await unless(stop, failing())
        asyncio.get_running_loop().call_later(0.05, stop.set)
        assert await unless(stop, work()) is False
        assert ended.is_set()

    async def failing() -> None:
        raise RemoteUnavailable("away")

    asyncio.run(working())


def test_a_busy_verifier_is_left_alone_for_as_long_as_it_asks(scene: Any) -> None:
    class Busy(Unavailable):
        code = "busy"
        retry_after = 2.0

    async def running(agent: Any) -> None:
        stop = asyncio.Event()
        scene.standin.faults["challenges"] = [Busy("too many")]
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line.get("code") == "busy")
        assert 2.0 <= scene.lines[-1]["retry_seconds"] <= 3.0
        asked = scene.standin.asked.count("challenges")
        await asyncio.sleep(1.0)
        assert scene.standin.asked.count("challenges") == asked
        await scene.until(lambda line: line["event"] == "round")
        stop.set()
        await working

    scene.play(running)
