"""Doors: other programs of the node speak to the site through the agent, which shows the node's certificate."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from umec_attest.agent.control import ask, serve_control
from umec_attest.agent.doors import MOST_DOORS, Doors
from umec_attest.agent.loop import Agent
from umec_attest.agent.requests import OpenDoor, Token, checked
from umec_core.errors import Invalid

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Hall:
    """The agent's socket, and who has asked there for a door."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self._asked: list[asyncio.StreamWriter] = []

    async def door(self, *, port: int | None = None) -> tuple[dict[str, Any], Streams]:
        """Ask for a door to the site, or to where it is said."""
        parts = urlsplit(self.scene.standin.url)
        reader, writer = await asyncio.open_unix_connection(self.scene.state / "agent.sock")
        self._asked.append(writer)
        writer.write(json.dumps(OpenDoor(parts.hostname or "", port or parts.port or 0).to_json()).encode() + b"\n")
        return json.loads(await reader.readline()), (reader, writer)

    async def close(self) -> None:
        for writer in self._asked:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def hall(agent: Agent, scene: Any) -> AsyncIterator[Hall]:
    async with serve_control(agent, scene.state):
        made = Hall(scene)
        try:
            yield made
        finally:
            await made.close()


async def call(scene: Any, streams: Streams) -> tuple[int, Any]:
    """Speak plain HTTP through a door, with a token that is bound to the certificate of the connection."""
    resource = f"{scene.standin.url}/platform/v1"
    token = await ask(scene.state, Token(resource=resource, scope="node:host"))
    assert token is not None
    reader, writer = streams
    lines = [
        "POST /platform/v1/echo HTTP/1.1",
        f"Host: {urlsplit(scene.standin.url).netloc}",
        f"Authorization: Bearer {token['token']}",
        "Content-Type: application/json",
        "Content-Length: 8",
    ]
    writer.write("\r\n".join([*lines, "", '{"a": 1}']).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: "))
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


def test_a_door_shows_the_certificate_that_tokens_are_bound_to(scene: Any) -> None:
    async def going(agent: Agent) -> None:
        async with hall(agent, scene) as made:
            await agent.attest()
            await agent.renew()
            said, streams = await made.door()
            assert said == {"ok": True}
            assert (await call(scene, streams))[0] == 200
            assert (await call(scene, streams))[0] == 200

    scene.play(going)


def test_no_door_opens_for_a_node_that_is_not_attested_or_to_a_stranger(scene: Any) -> None:
    async def going(agent: Agent) -> None:
        stranger = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with hall(agent, scene) as made, stranger:
            said, _ = await made.door()
            assert said["code"] == "node-not-attested"
            await agent.attest()
            await agent.renew()
            said, _ = await made.door(port=stranger.sockets[0].getsockname()[1])
            assert said["code"] == "remote-unavailable"
            said, _ = await made.door()
            assert said == {"ok": True}

    scene.play(going)


def test_doors_close_when_the_node_loses_its_credentials(scene: Any) -> None:
    async def going(agent: Agent) -> None:
        async with hall(agent, scene) as made:
            await agent.attest()
            await agent.renew()
            _, streams = await made.door()
            assert (await call(scene, streams))[0] == 200
            agent._credentials._doors.last_seconds = 0.5
            await agent.renew()  # nothing is due
            await agent.rotate()  # what was bound to the former keys is let go of
            assert not streams[0].at_eof()  # the news of it may still come
            assert await streams[0].read() == b""
            assert (await made.door())[0]["code"] == "node-not-attested"

    scene.play(going)


def test_a_door_that_opens_while_the_credentials_go_is_closed(scene: Any) -> None:
    asked, released = asyncio.Event(), asyncio.Event()
    leading: list[Any] = []

    async def held(*near: Any) -> None:
        """Lead to the site, as slowly as a bad network."""
        leading.append(asyncio.current_task())
        asked.set()
        await released.wait()
        parts = urlsplit(scene.standin.url)
        await Doors().open(await asyncio.open_connection(parts.hostname, parts.port), 60.0).join(near)
        near[1].close()

    async def going(agent: Agent) -> None:
        slow = await asyncio.start_server(held, urlsplit(scene.standin.url).hostname, 0)
        port = slow.sockets[0].getsockname()[1]
        async with hall(agent, scene) as made, slow:
            await agent.attest()
            await agent.renew()
            opening = asyncio.create_task(made.door(port=port))
            await asked.wait()
            scene.standin.verdict, scene.standin.generation = "contraindicated", 2
            falling = asyncio.create_task(agent.attest())
            async with asyncio.timeout(60):
                while agent._credentials._session is not None:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.01)
            released.set()
            said, streams = await opening
            assert said["code"] == "node-not-attested"
            assert await streams[0].read() == b""
            await falling
            assert not agent._credentials._doors._open
            scene.standin.verdict, scene.standin.generation = "affirming", 3
            await agent.attest()
            await agent.renew()
            assert (await made.door(port=port))[0] == {"ok": True}
        await asyncio.wait(leading)

    scene.play(going)


def test_there_are_so_many_doors_and_a_closed_one_makes_room(scene: Any) -> None:
    async def going(agent: Agent) -> None:
        async with hall(agent, scene) as made:
            await agent.attest()
            await agent.renew()
            opened = [await made.door() for _ in range(MOST_DOORS)]
            assert all(said == {"ok": True} for said, _ in opened)
            assert (await made.door())[0]["code"] == "doors-busy"
            opened[0][1][1].close()
            while (await made.door())[0] != {"ok": True}:
                pass  # it hears of the end a moment later

    scene.play(going)


@pytest.mark.parametrize(("host", "port"), [("", 443), ("a b", 443), ("a/..", 443), ("site", 0), ("site", 65536)])
def test_a_door_leads_to_a_host_and_a_port(host: str, port: int) -> None:
    assert checked(OpenDoor("site", 443)) == OpenDoor("site", 443)
    with pytest.raises(Invalid) as refused:
        checked(OpenDoor(host, port))
    assert refused.value.code == "invalid-input"
