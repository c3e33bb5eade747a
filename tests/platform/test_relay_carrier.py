"""The relay on the node: what it carries to netd and what it does not, whatever happens on the way.

The platform and its endpoints are real, and so is the relay. `Doorkeeper` stands where the agent does (tests/agent has
the real one, tests/site all together): it opens doors to the platform's socket, and spoils what goes through.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from umec_core.errors import UmecError
from umec_core.http import create_app
from umec_core.server import Listener, serve
from umec_core.standing import Standing
from umec_core.tokens import certificate_thumbprint
from umec_images.oci.manifest import MANIFEST, Descriptor, encode
from umec_images.oci.reference import digest_of
from umec_platform.errors import HostSilent
from umec_platform.hosts.relays import RelayDriver
from umec_platform.netd.errors import RemoteRefusal
from umec_platform.relay import carrier
from umec_platform.relay.carrier import Relay
from umec_platform.relay.doors import AgentSilent, AgentSocket

CONFIG, LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
MANAGEMENT = "https://authority.test:8443"
NODE = "pole-7"
FILES = {digest_of(content): content for content in (b"{}", b"a layer")}
IMAGE = encode(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(CONFIG, digest_of(b"{}"), 2).to_json(),
        "layers": [Descriptor(LAYER, digest_of(b"a layer"), 7).to_json()],
    }
)


@dataclass
class Doorkeeper:
    """The agent's socket, in front of the platform's."""

    world: Any
    folder: Path
    certificate: bytes = b"first"
    shown: list[bytes] = field(default_factory=list)
    """The certificates of connections, in their order."""
    generation: int = 1
    refuse: str | None = None
    """A code that every request for a token is refused with."""
    swallow: int = 0
    """How many answers with requests in them get lost on their way."""
    hold: asyncio.Event | None = None
    """What such answers wait for on their way."""
    answers: list[bytes] = field(default_factory=list)

    def token(self) -> str:
        bound = {"x5t#S256": certificate_thumbprint(self.certificate)}
        said = {"sub": NODE, "client_id": NODE, "node": NODE, "generation": self.generation, "cnf": bound}
        return str(self.world.token(f"{MANAGEMENT}/platform/v1", "node:host", **said))

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            asked = json.loads(await reader.readline())
            if asked["op"] == "token" and self.refuse is not None:
                said: dict[str, Any] = {"ok": False, "code": self.refuse, "detail": "no"}
            elif asked["op"] == "token":
                said = {"ok": True, "token": self.token()}
            else:
                said = {"ok": True}
            writer.write(json.dumps(said).encode() + b"\n")
            if asked["op"] == "door":
                await self._door(reader, writer, "registry" if asked["port"] == 5443 else "platform")
        writer.close()

    async def _door(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: str) -> None:
        if to == "platform":
            self.shown.append(self.certificate)
        header = f"\r\nTest-Certificate: {self.certificate.hex()}\r\n".encode()
        far_reader, far_writer = await asyncio.open_unix_connection(self.folder / f"{to}.sock")

        async def there() -> None:
            while data := await reader.read(65536):
                head, mark, rest = data.partition(b"\r\n")
                far_writer.write(head + header + rest if mark and b"HTTP/1.1" in head else data)

        async def back() -> None:
            while data := await far_reader.read(65536):
                if b'"line"' in data and self.hold is not None:
                    await self.hold.wait()
                if b'"line"' in data and self.swallow:
                    self.swallow -= 1
                    return
                self.answers.append(data)
                writer.write(data)

        ways = [asyncio.create_task(there()), asyncio.create_task(back())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        far_writer.close()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


@dataclass
class Netd:
    """What is at netd's socket: it notes what it is asked, and answers what it is told to."""

    said: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=lambda: {"began": "x"})
    raw: bytes | None = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        assert line.count(b"\n") == 1
        request = json.loads(line)
        self.said.append(request)
        reply = json.dumps({"id": request["id"], "ok": True, "result": self.result}).encode() + b"\n"
        writer.write(reply if self.raw is None else self.raw)
        if self.raw is not None:
            writer.close()
            return
        assert await reader.read() == b""  # one request, and nothing after it
        writer.close()


@dataclass
class Registry:
    """A registry of one image, whose files come as slowly as `release` says; it notes what it is asked for."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Which file, and by which certificate."""

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        shown = dict(scope["headers"])[b"test-certificate"].decode()
        digest = scope["path"].rpartition("/")[2]
        self.asked.append((digest, bytes.fromhex(shown).decode()))
        manifest = digest == digest_of(IMAGE)
        if not manifest:
            await self.release.wait()
        headers = [(b"content-type", MANIFEST.encode() if manifest else b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": IMAGE if manifest else FILES[digest]})


@dataclass
class Place:
    """Everything together."""

    world: Any
    keeper: Doorkeeper
    netd: Netd
    driver: RelayDriver
    relay: Relay
    folder: Path
    registry: Registry
    relaying: "asyncio.Task[None]"

    async def end(self) -> None:
        """End the relay."""
        self.relaying.cancel()
        await asyncio.gather(self.relaying, return_exceptions=True)

    async def works(self) -> None:
        """Return when the relay carries: what failed before is behind it."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(HostSilent):
                    assert await self.driver.status() == self.netd.result
                    return
                await asyncio.sleep(0.02)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - there is nothing that tells
            await asyncio.sleep(0.01)


def shown(app: Any) -> Any:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        found = [value for name, value in scope.get("headers", []) if name == b"test-certificate"]
        certificate = bytes.fromhex(found[0].decode()) if found else None
        await app({**scope, "state": {"client_certificate": certificate}}, receive, send)

    return inner


@contextlib.asynccontextmanager
async def opened(world: Any, folder: Path) -> AsyncIterator[Place]:
    async with world.open(working=False):
        app = shown(create_app("management", world.service.management_routers))
        made = {"id": NODE, "node": NODE, "netd": f"node:{NODE}"}
        assert (await world.operate("POST", "/platform/v1/hosts", json=made)).status_code == 201
        await world.stand(NODE, Standing.TRUSTED, 1)
        keeper, netd, stop = Doorkeeper(world, folder), Netd(), asyncio.Event()
        registry = Registry()
        listeners = [Listener(app, unix=folder / "platform.sock"), Listener(registry, unix=folder / "registry.sock")]
        serving = asyncio.create_task(serve(listeners, stop))
        agent = await asyncio.start_unix_server(keeper.connected, folder / "agent.sock")
        beside = await asyncio.start_unix_server(netd.connected, folder / "netd.sock")
        relay = Relay(
            AgentSocket(folder),
            site=MANAGEMENT,
            netd=folder / "netd.sock",
            images=folder / "images",
            images_mebibytes=1,
        )
        driver = await world.service._fleet.driver(NODE)
        relaying = asyncio.create_task(relay.run())
        try:
            yield (place := Place(world, keeper, netd, driver, relay, folder, registry, relaying))
        finally:
            await place.end()
            driver._relays.rest()
            agent.close()
            beside.close()
            stop.set()
            await serving


@pytest.fixture
def play(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Play a scene with a relay that waits for fractions of what it waits in a street."""
    monkeypatch.setattr(carrier, "PACE", carrier.Pace(first=0.02, longest=0.05))
    monkeypatch.setattr(carrier, "LAST_SECONDS", 0.5)

    def played(scene: Callable[[Place], Awaitable[None]]) -> None:
        async def scenario() -> None:
            async with opened(world, tmp_path) as place:
                await scene(place)

        asyncio.run(scenario())

    return played


def test_requests_reach_netd_and_answers_come_back(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        assert place.netd.said[-1]["op"] == "status"
        place.netd.result = {"subnet": "10.64.0.0/24"}
        assert await place.driver.put_tenant("harbour") == place.netd.result

    play(scene)


def test_a_file_that_two_starts_want_at_once_is_fetched_once(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        pulls = [asyncio.create_task(place.driver.pull("harbour/hello", digest_of(IMAGE))) for _ in range(2)]
        await until(lambda: len(place.registry.asked) >= 3)  # the manifest twice, and a file
        for _ in range(20):
            await place.works()  # time enough for the other to ask for that file, too
        place.registry.release.set()
        assert await asyncio.gather(*pulls) == [place.folder / "images"] * 2
        assert sorted(digest for digest, _ in place.registry.asked) == sorted([digest_of(IMAGE)] * 2 + list(FILES))
        for digest, content in FILES.items():
            assert (place.folder / "images" / "sha256" / digest.removeprefix("sha256:")).read_bytes() == content

    play(scene)


def test_an_image_is_asked_for_by_the_present_certificate_and_by_none_after_the_end(play: Any) -> None:
    async def scene(place: Place) -> None:
        place.registry.release.set()
        await place.works()
        await place.driver.pull("harbour/hello", digest_of(IMAGE))
        assert {certificate for _, certificate in place.registry.asked} == {"first"}
        place.registry.asked.clear()
        place.keeper.certificate = b"second"
        await place.driver.pull("harbour/hello", digest_of(IMAGE))
        assert {certificate for _, certificate in place.registry.asked} == {"second"}
        images = place.relay._images
        await place.end()
        with pytest.raises(RuntimeError, match="closed"):
            await images.fetch("https://authority.test:5443", "harbour/hello", digest_of(IMAGE))

    play(scene)


def test_what_netd_refuses_and_that_it_is_not_there_come_back_as_refusals(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        for raw in (b"no answer", b"no answer\n", b'{"id": "a", "ok": true, "more": 1}\n', b""):
            place.netd.raw = raw
            with pytest.raises(RemoteRefusal) as refused:
                await place.driver.status()
            assert (refused.value.code, refused.value.kind.value) == ("netd-unreachable", "unavailable")
        (place.folder / "netd.sock").unlink()
        with pytest.raises(RemoteRefusal) as refused:
            await place.driver.status()
        assert refused.value.code == "netd-unreachable"

    play(scene)


def test_an_answer_that_is_too_long_is_refused_and_not_tried_for_ever(play: Any, monkeypatch: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        monkeypatch.setattr(carrier, "MAX_ANSWER", 10)
        with pytest.raises(RemoteRefusal) as refused:
            await place.driver.status()
        assert refused.value.code == "message-too-large"

    play(scene)


def test_what_was_lost_on_its_way_is_carried_out_once(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        before = len(place.netd.said)
        place.keeper.swallow = 1
        assert await place.driver.stop_instance("one") == place.netd.result
        assert place.keeper.swallow == 0
        assert [one["op"] for one in place.netd.said[before:]] == ["instance.stop"]

    play(scene)


def test_what_was_under_way_for_too_long_is_not_carried_out(play: Any, monkeypatch: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        monkeypatch.setattr(carrier, "LATE", -10.0)  # with the ten seconds that an ask waits: none at all
        place.keeper.hold = asyncio.Event()
        asked = asyncio.create_task(place.driver.stop_instance("late"))
        await asyncio.sleep(0.1)
        place.keeper.hold.set()
        with pytest.raises(HostSilent):
            await asked
        assert "late" not in json.dumps(place.netd.said)
        monkeypatch.setattr(carrier, "LATE", 10.0)
        await place.works()
        assert "late" not in json.dumps(place.netd.said)

    play(scene)


def test_a_token_of_a_new_certificate_is_shown_on_a_connection_that_shows_it(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        place.keeper.certificate = b"second"
        await place.works()
        await place.works()
        assert place.keeper.shown[0] == b"first"
        assert place.keeper.shown[-1] == b"second"
        assert place.keeper.shown.count(b"second") <= 4  # and then those connections stay

    play(scene)


def test_a_node_without_credentials_tries_again_until_it_has_some(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        with structlog.testing.capture_logs() as lines:
            place.keeper.refuse = "node-not-attested"
            place.driver._relays._lines.pop(NODE).news.set()  # the platform began anew: so has the relay to
            await until(lambda: "node-not-attested" in {line.get("code") for line in lines})
            place.keeper.refuse = None
            await place.works()

    play(scene)


def test_a_relay_that_was_replaced_leaves_its_place_to_the_other(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        session = place.driver._relays._lines[NODE].session
        with structlog.testing.capture_logs() as lines:
            other = place.driver._relays.open(NODE, 1)
            await until(lambda: [line for line in lines if line.get("code") == "relay-replaced"])
        [line] = [line for line in lines if line.get("code") == "relay-replaced"]
        assert line["again_in"] >= 30
        assert place.driver._relays._lines[NODE].session == other != session

    play(scene)


def test_netd_hears_of_the_fall_of_its_node(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        await until(lambda: place.driver._relays._lines[NODE].asking)
        await place.world.stand(NODE, Standing.UNTRUSTED, 2)
        place.keeper.refuse = "node-not-attested"
        told = asyncio.create_task(place.driver.standing("a.b.c"))
        await until(lambda: place.netd.said[-1]["op"] == "standing")
        told.cancel()
        await asyncio.gather(told, return_exceptions=True)
        with pytest.raises(HostSilent):
            await place.driver.status()

    play(scene)


def test_what_is_no_request_is_carried_nowhere(play: Any) -> None:
    async def scene(place: Place) -> None:
        await place.works()
        before = len(place.netd.said)
        relays = place.driver._relays
        for line in (
            b"",
            b"[]",
            b"{}",
            b'{"id": "a"}',
            b"\xff".decode("latin-1").encode(),
            b'{"op": "image.pull", "id": 7}',
        ):
            with pytest.raises(UmecError):
                await relays.carry(NODE, line, "a", seconds=0.2)
        assert len(place.netd.said) == before
        await place.works()

    play(scene)


@pytest.mark.parametrize("said", [b"", b"{", b"[]\n", b'{"ok": false}\n', b'{"ok": 1}\n'])
def test_an_agent_that_talks_nonsense_is_none(tmp_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(said)
            writer.close()

        async with await asyncio.start_unix_server(connected, tmp_path / "agent.sock"):
            for request in (lambda one: one.token("r", "s"), lambda one: one.door("h", 1)):
                with pytest.raises(UmecError) as refused:
                    await request(AgentSocket(tmp_path))
                assert refused.value.code == ("agent-refused" if b"false" in said else "agent-silent")
        (tmp_path / "agent.sock").unlink(missing_ok=True)
        with pytest.raises(AgentSilent) as silent:
            await AgentSocket(tmp_path).token("r", "s")
        assert silent.value.code == "agent-silent"

    asyncio.run(scenario())
