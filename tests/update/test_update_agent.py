"""The agent's part of an update, against a real keeper and disk; the site is a stand-in that says no when told to."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import struct
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from umec_attest.agent.keeper import read_status
from umec_attest.agent.transport import Answer
from umec_attest.agent.updates import Updates, updating
from umec_core.errors import UmecError
from umec_core.remote import RemoteRefused, RemoteUnavailable
from umec_images.nodeimage.authenticode import sign_image
from umec_images.nodeimage.keys import load_certificates, load_signer, make_keys
from umec_images.nodeimage.variables import measured_variables
from umec_images.update import EfiVariables
from umec_images.update.keeper import SOCKET, Keeper, _door
from umec_images.update.node import Node

SITE, REGISTRY = "https://site.test:8443", "https://site.test:5443"
DB = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Site:
    """What an agent reaches in its node's name."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.order: dict | None = None
        self.refusals: list[str | None] = []
        """Codes of admission, one after the other; None and the end of the list admit."""
        self.reports: list[dict] = []
        self.announced: list[dict] = []
        self.fetched: list[str] = []
        self.cut: set[str] = set()
        """Digests of blobs that break off in the middle."""
        self.endless: set[str] = set()
        """Digests of blobs that never end."""
        self.sent = 0
        """Bytes of them that were taken."""
        self.open_box = True
        self.said: dict[str, tuple[int, bytes]] = {}
        """What is answered at a path instead: a status, and a body."""
        self.image: str | None = "street-node"
        """What the node says that it has."""

    def offer(self, made, *, attempt=1) -> None:
        contents = {path.name: path.read_bytes() for path in made.folder.iterdir()}
        layers = [
            {"digest": sha256(content), "size": len(content), "annotations": {"org.opencontainers.image.title": name}}
            for name, content in contents.items()
        ]
        manifest = json.dumps({"layers": layers}).encode()
        self.blobs |= {sha256(content): content for content in (*contents.values(), manifest)}
        self.order = {
            "registry": REGISTRY,
            "repository": "city/street-node",
            "digest": sha256(manifest),
            "version": made.version,
            "manifest": sha256(contents["manifest.json"]),
            "kernel": sha256(contents["uki.efi"]),
            "attempt": attempt,
            "ordered_by": "a member that a later site may have",
        }

    def line(self, event):
        return {"event": event}

    async def call(self, method, url, *, resource, scope, content, headers):
        assert (method == "POST") is (headers.get("Content-Type") == "application/json")
        parts, said = urlsplit(url), None
        path = parts.path
        if path in self.said:
            status, content = self.said[path]
            return Answer(path, status, {}, content)
        assert resource == (f"{REGISTRY}/" if url.startswith(REGISTRY) else f"{SITE}/{path.split('/')[1]}/v1")
        assert scope == ("images:pull" if url.startswith(REGISTRY) else "node:host")
        if path == "/images/v1/admission":
            code = self.refusals.pop(0) if self.refusals else None
            assert parse_qs(parts.query)["tenant"] == ["city"]
            said = {"admitted": code is None, "code": code, "detail": "no"}
        elif path == "/attest/v1/reboots":
            if not self.open_box:
                return Answer(path, 409, {}, b'{"code": "node-class-other", "detail": "no"}')
            self.announced.append(json.loads(content))
            said = {}
        elif path == "/platform/v1/node-image" and method == "POST":
            self.reports.append(json.loads(content))
            return Answer(path, 204, {}, b"")
        elif path == "/platform/v1/node-image":
            assert parse_qs(parts.query) == ({} if self.image is None else {"image": [self.image]})
            said = {"order": self.order}
        elif "/manifests/" in path or "/blobs/" in path:
            return Answer(path, 200, {}, self.blobs[path.rpartition("/")[2]])
        return Answer(path, 200, {}, json.dumps(said).encode())

    @contextlib.asynccontextmanager
    async def download(self, url, *, resource, scope):
        assert (resource, scope) == (f"{REGISTRY}/", "images:pull")
        digest = url.rpartition("/")[2]
        self.fetched.append(digest)
        content = self.blobs[digest]

        async def pieces():
            for place in range(0, len(content), 10_000):
                if place and digest in self.cut:
                    raise RemoteUnavailable("the line went dead")
                yield content[place : place + 10_000]

        async def endless():
            while True:
                self.sent += 10_000
                yield content[:10_000]

        yield endless() if digest in self.endless else pieces()


class World:
    def __init__(self, folder, disk, running) -> None:
        self.folder, self.disk = folder, disk
        self.site, self.lines, self.restarts = Site(), [], 0
        self.start(running)

    def start(self, running) -> None:
        node = Node(self.disk, EfiVariables(self.folder / "efivars"), running, self._restart)
        standing = self.folder / "standing"
        self.keeper = Keeper(node, self.folder, standing, trial_seconds=100, say=self.lines.append, elapsed=lambda: 0)
        self.keeper.settle()
        self.updates = Updates(self.site, self.folder, SITE, lambda line: self.lines.append(str(line)))

    def _restart(self) -> None:
        self.restarts += 1

    def look(self) -> None:
        """Let the agent look once, while the keeper answers whoever comes."""
        with _door(self.folder / SOCKET, 0) as door:
            door.settimeout(0.05)
            over = threading.Event()

            def serve():
                while not over.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection, _ = door.accept()
                        with connection:
                            self.keeper.answer(connection, (0,))

            serving = threading.Thread(target=serve)
            serving.start()
            try:
                asyncio.run(self.updates.look())
            finally:
                over.set()
                serving.join()

    def refused(self) -> str:
        with pytest.raises(UmecError) as caught:
            self.look()
        return caught.value.code


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("db") / "keys"
    make_keys(folder, dt.datetime(2026, 11, 22, tzinfo=dt.UTC))
    return folder


@pytest.fixture(scope="module")
def street(keys, tmp_path_factory, image_factory):
    folder, signer = tmp_path_factory.mktemp("street"), load_signer(keys)
    return {
        version: image_factory(folder / str(version), version, sign=lambda image: sign_image(image, signer))
        for version in (1, 2, 3)
    }


@pytest.fixture
def world(tmp_path, street, keys, disk_factory):
    (tmp_path / "efivars").mkdir()
    db = measured_variables(load_certificates(keys))["db"]
    (tmp_path / "efivars" / DB).write_bytes(struct.pack("<I", 0x27) + db)
    return World(tmp_path, disk_factory(tmp_path / "disk.img", street[1]), street[1].root_hash)


def test_what_is_ordered_is_fetched_announced_and_tried(world, street):
    world.look()
    assert (world.site.reports[-1]["running"], world.restarts) == (1, 0)
    world.site.offer(street[2])
    world.look()
    assert world.restarts == 1
    assert read_status(world.folder).phase == "trial"
    assert [(each["resets"], each["seconds"]) for each in world.site.announced] == [(2, 1800)]
    assert world.site.reports[-1]["phase"] == "staged"
    assert world.site.reports[-1]["digest"] == world.site.order["digest"]
    world.start(street[2].root_hash)
    world.look()  # on trial: nothing is done but told
    assert (world.site.reports[-1]["phase"], world.site.reports[-1]["running"], world.restarts) == ("trial", 2, 1)
    (world.folder / "standing").write_text('{"standing": "trusted", "certificate": true}')
    world.keeper.watch()
    world.look()
    assert (world.site.reports[-1]["phase"], world.site.reports[-1]["confirmed"]) == ("none", 2)
    told = len(world.site.reports)
    world.look()
    assert (len(world.site.reports), world.restarts) == (told, 1)


def test_an_older_image_is_refused_before_it_is_fetched_and_that_is_told(world, street):
    world.site.offer(street[2])
    world.look()
    world.start(street[2].root_hash)
    (world.folder / "standing").write_text('{"standing": "trusted", "certificate": true}')
    world.keeper.watch()
    world.site.offer(street[1])
    world.site.fetched.clear()
    assert world.refused() == "update-image-older"
    assert (world.site.fetched, world.restarts) == ([], 1)
    report = world.site.reports[-1]
    assert (report["code"], report["version"], report["digest"]) == (
        "update-image-older",
        1,
        world.site.order["digest"],
    )
    assert (report["running"], report["confirmed"]) == (2, 2)


def test_what_the_site_does_not_admit_is_not_fetched(world, street):
    world.site.offer(street[2])
    world.site.refusals = ["promotion-missing"]
    assert world.refused() == "promotion-missing"
    assert (world.site.fetched, world.site.reports[-1]["code"]) == ([], "promotion-missing")
    world.look()
    assert world.restarts == 1


def test_what_is_denied_while_it_comes_is_not_tried(world, street):
    world.site.offer(street[2])
    world.site.refusals = [None, "image-denied"]
    assert world.refused() == "image-denied"
    assert (world.restarts, read_status(world.folder).phase) == (0, "staged")
    assert world.site.announced == []
    world.look()
    assert world.restarts == 1


def test_a_registry_that_sends_something_else_is_refused(world, street):
    world.site.offer(street[2])
    good = dict(world.site.blobs)
    for digest in (world.site.order["digest"], world.site.order["manifest"]):
        world.site.blobs = good | {digest: good[digest] + b" "}
        assert world.refused() == "answer-invalid"
    world.site.blobs = good | {world.site.order["kernel"]: b"x" * len(good[world.site.order["kernel"]])}
    assert world.refused() == "update-image-other"
    world.site.blobs = good
    other = dict(world.site.order)
    world.site.offer(street[3])
    world.site.order |= {"manifest": other["manifest"]}
    assert world.refused() == "answer-invalid"
    assert world.restarts == 0
    world.site.offer(street[2])
    world.look()
    assert world.restarts == 1


def test_a_line_that_breaks_is_no_update_and_the_next_one_is(world, street):
    world.site.offer(street[2])
    root = sha256((street[2].folder / "root.img").read_bytes())
    world.site.cut = {root}
    assert world.refused() == "remote-unavailable"
    assert read_status(world.folder).phase == "writing"
    world.site.cut = set()
    world.look()
    assert world.restarts == 1


def test_a_part_that_is_shorter_than_it_says_is_refused_at_once(world, street):
    world.site.offer(street[2])
    root = sha256((street[2].folder / "root.img").read_bytes())
    whole = world.site.blobs[root]
    world.site.blobs[root] = whole[:-1]
    assert world.refused() == "answer-invalid"
    assert (world.restarts, world.site.reports[-1]["code"]) == (0, "answer-invalid")
    world.site.blobs[root] = whole
    world.look()
    assert world.restarts == 1


def test_no_more_is_fetched_of_a_part_than_it_has(world, street):
    world.site.offer(street[2])
    root = sha256((street[2].folder / "root.img").read_bytes())
    world.site.endless = {root}
    assert world.refused() == "update-image-other"
    size = len(world.site.blobs[root])
    assert size <= world.site.sent < size + 10_000
    world.site.endless = set()
    world.look()
    assert world.restarts == 1


def test_a_part_of_another_size_than_the_manifest_says_is_not_fetched(world, street):
    world.site.offer(street[2])
    root = sha256((street[2].folder / "root.img").read_bytes())
    good, manifest = dict(world.site.blobs), json.loads(world.site.blobs[world.site.order["digest"]])
    next(each for each in manifest["layers"] if each["digest"] == root)["size"] += 1
    changed = json.dumps(manifest).encode()
    world.site.blobs[sha256(changed)] = changed
    world.site.order |= {"digest": sha256(changed)}
    assert world.refused() == "answer-invalid"
    assert root not in world.site.fetched
    world.site.blobs = good
    world.site.offer(street[2])
    world.look()
    assert world.restarts == 1


@pytest.mark.parametrize(
    "said",
    [b'{"ok": true, "want": "uki.efi"}', b'{"ok": true, "want": 3, "size": 1}', b"[" * 50_000, b"{}", b"[]", b""],
)
def test_a_keeper_that_says_what_nobody_knows_ends_no_agent(world, street, said):
    world.site.offer(street[2])
    with _door(world.folder / SOCKET, 0) as door:

        def answer():
            connection, _ = door.accept()
            with connection:
                connection.sendall(said + b"\n")
                while connection.recv(65536):
                    pass

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(UmecError) as caught:
            asyncio.run(world.updates.look())
        answering.join()
    codes = {b'{"ok': "answer-invalid", b"{}": "None", b"[]": "None"}
    assert caught.value.code == codes.get(said[:4], "remote-unavailable")
    world.look()
    assert world.restarts == 1


@pytest.mark.parametrize("name", ["manifest.json", "uki.efi"])
def test_an_image_in_the_registry_that_lacks_a_part_is_refused(world, street, name):
    world.site.offer(street[2])
    manifest = json.loads(world.site.blobs[world.site.order["digest"]])
    title = "org.opencontainers.image.title"
    manifest["layers"] = [each for each in manifest["layers"] if each["annotations"][title] != name]
    changed = json.dumps(manifest).encode()
    world.site.blobs[sha256(changed)] = changed
    world.site.order |= {"digest": sha256(changed)}
    assert world.refused() == "answer-invalid"
    assert (world.site.fetched, world.restarts) == ([], 0)
    world.site.offer(street[2])
    world.look()
    assert world.restarts == 1


@pytest.mark.parametrize("status", [199, 300, 503])
def test_what_is_answered_with_a_refusal_is_no_order(world, street, status):
    world.site.offer(street[2])
    path, body = "/platform/v1/node-image", json.dumps({"order": world.site.order}).encode()
    world.site.said[path] = (status, body)
    with pytest.raises(RemoteRefused) as caught:
        world.look()
    assert (caught.value.status, world.restarts) == (status, 0)
    world.site.said[path] = (299, body)
    world.look()
    assert world.restarts == 1


def test_an_admission_that_is_no_object_admits_nothing(world, street):
    world.site.offer(street[2])
    for body in (b"[]", b"null", b"[" * 100_000, b"admitted"):
        world.site.said["/images/v1/admission"] = (200, body)
        assert world.refused() == "answer-invalid"
    world.site.said.clear()
    world.look()
    assert world.restarts == 1


def test_a_node_whose_disk_is_none_is_told_and_fetches_nothing(world, street):
    world.disk.write_bytes(bytes(4096))
    world.start(street[1].root_hash)
    world.site.image = None
    world.site.offer(street[2])
    world.look()
    assert (world.site.reports[-1]["code"], world.site.reports[-1]["running"]) == ("update-disk-unfit", None)
    assert world.site.fetched == []


def test_another_image_is_tried_after_one_that_fell_back(world, street):
    world.site.offer(street[2])
    world.look()
    world.start(street[1].root_hash)
    world.look()
    assert world.restarts == 1
    world.site.offer(street[3])
    world.look()
    assert world.restarts == 2


class Failing(Updates):
    """Updates with a fault of their own."""

    looks = 0

    async def look(self):
        self.looks += 1
        raise KeyError("nobody thought of it")


def test_a_fault_in_updates_is_told_and_ends_neither_them_nor_the_agent():
    async def running():
        lines, stop = asyncio.Queue(), asyncio.Event()
        updates = Failing(Site(), None, SITE, lines.put_nowait)
        async with updating(updates, stop):
            line = await lines.get()
            assert not stop.is_set()
        assert line["event"] == "update-broken"
        assert (line["code"], line["detail"]) == ("agent-error", "KeyError: 'nobody thought of it'")
        assert 30 <= line["retry_seconds"] <= 60
        assert updates.looks == 1

    asyncio.run(running())


def test_updates_that_end_by_themselves_end_the_agent_with_what_ended_them():
    def report(_line):
        raise BrokenPipeError

    async def running():
        stop = asyncio.Event()
        with pytest.raises(BrokenPipeError):
            async with updating(Failing(Site(), None, SITE, report), stop):
                await stop.wait()

    asyncio.run(running())
    asyncio.run(ending_in_order())


async def ending_in_order():
    stop = asyncio.Event()
    async with updating(None, stop):
        pass
    async with updating(Failing(Site(), None, SITE, str), stop):
        await asyncio.sleep(0)
    assert stop.is_set()


def test_what_fell_back_is_told_and_tried_again_only_for_a_newer_order(world, street):
    world.site.offer(street[2])
    world.look()
    world.start(street[1].root_hash)
    world.look()
    report = world.site.reports[-1]
    assert (report["phase"], report["code"]) == ("failed", "update-fell-back")
    assert (report["digest"], report["version"], world.restarts) == (world.site.order["digest"], 2, 1)
    world.look()
    assert world.restarts == 1
    world.site.offer(street[2], attempt=2)
    world.look()
    assert world.restarts == 2


def test_a_node_whose_boots_need_no_announcement_updates_all_the_same(world, street):
    world.site.open_box = False
    world.site.offer(street[2])
    world.look()
    assert (world.restarts, world.site.announced) == (1, [])


@pytest.mark.parametrize(
    "change",
    [{"digest": "latest"}, {"registry": "http://site.test"}, {"repository": "../x"}, {"attempt": -1}, {"kernel": None}],
    ids=str,
)
def test_an_order_that_is_none_is_refused(world, street, change):
    world.site.offer(street[2])
    world.site.order |= change
    assert world.refused() == "answer-invalid"
    assert world.restarts == 0
    world.site.offer(street[2])
    world.look()
    assert world.restarts == 1


def test_a_node_without_a_keeper_asks_nothing(world, street):
    (world.folder / "update.json").unlink()
    world.site.offer(street[2])
    world.look()
    assert world.site.reports == []
    (world.folder / "update.json").write_text("[]")
    assert world.refused() == "answer-invalid"
