"""A store in trouble is never taken for an empty one: nothing moves, nothing is forgotten, the disk is not filled."""

import asyncio
import contextlib
import os
import signal
import uuid
from pathlib import Path

import httpx
import pytest
import structlog

from umec_core.child import ChildTimes
from umec_core.errors import UmecError
from umec_images.gateway.backend import Backend
from umec_images.gateway.content import Contents
from umec_images.gateway.errors import RegistryBusy
from umec_images.gateway.process import RegistryProcess
from umec_images.gateway.spool import BlobResponse, Room
from umec_images.oci.client import RegistryClient
from umec_images.oci.manifest import EMPTY, EMPTY_CONTENT, MANIFEST, Descriptor, encode
from umec_images.oci.reference import digest_of

PROGRAM = Path("/usr/bin/docker-registry")
REPOSITORY = "alpha/app"


class Ailing(httpx.AsyncBaseTransport):
    """A way to the store that sometimes answers with a fault of its own."""

    def __init__(self, inner):
        self.inner, self.status = inner, None

    async def handle_async_request(self, request):
        if self.status is not None and request.method in {"GET", "HEAD"}:
            return httpx.Response(self.status, content=b"")
        return await self.inner.handle_async_request(request)

    async def aclose(self):
        await self.inner.aclose()


class Store:
    """A real docker-registry with the gateway's own view of it."""

    def __init__(self, process, transport):
        self.process, self.transport = process, transport
        self.backend = Backend(transport)
        self.contents = Contents(self.backend)

    def file(self, digest):
        name = digest.removeprefix("sha256:")
        return self.process.storage / f"docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"

    async def blob(self, content):
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(self.process.socket))) as http:
            return await RegistryClient("http://registry", http).push_blob(REPOSITORY, content)

    async def image(self, *, tag=None, subject=None):
        """Push an image with content of its own; return (digest, manifest)."""
        layer = uuid.uuid4().bytes
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor(EMPTY, await self.blob(EMPTY_CONTENT), len(EMPTY_CONTENT)).to_json(),
            "layers": [
                Descriptor("application/vnd.oci.image.layer.v1.tar", await self.blob(layer), len(layer)).to_json()
            ],
        }
        if subject is not None:
            manifest["subject"] = Descriptor(MANIFEST, *subject).to_json()
        content = encode(manifest)
        pushed = await self.contents.push(REPOSITORY, tag or digest_of(content), content, MANIFEST)
        return pushed.digest, content


def with_store(tmp_path, work):
    async def go():
        process = await RegistryProcess.start(PROGRAM, tmp_path / "registry")
        try:
            transport = Ailing(httpx.AsyncHTTPTransport(uds=str(process.socket)))
            store = Store(process, transport)
            try:
                await work(store)
            finally:
                await store.backend.close()
        finally:
            await process.stop()

    asyncio.run(go())


async def refusal(awaitable):
    with pytest.raises(UmecError) as caught:
        await awaitable
    return caught.value.code


@pytest.mark.parametrize("status", [500, 503, 429, 401])
def test_a_store_that_answers_with_a_fault_is_not_empty(tmp_path, status):
    async def work(store):
        digest, content = await store.image(tag="v1")
        first, _ = await store.image(subject=(digest, len(content)))
        other, other_content = await store.image()
        store.transport.status = status
        down = "registry-backend-unavailable"
        assert await refusal(store.backend.manifest(REPOSITORY, "v1")) == down
        assert await refusal(store.backend.tag(REPOSITORY, "v1")) == down
        assert await refusal(store.backend.tags(REPOSITORY)) == down
        assert await refusal(store.backend.blob_size(REPOSITORY, digest_of(EMPTY_CONTENT))) == down
        assert await refusal(store.backend.blob(REPOSITORY, digest_of(EMPTY_CONTENT), 10)) == down
        assert await refusal(store.backend.ping()) == down
        assert await refusal(store.contents.referrers(REPOSITORY, digest)) == down
        assert await refusal(store.contents._tag(REPOSITORY, "v1", other, other_content, MANIFEST)) == down
        entry = Descriptor(MANIFEST, other, len(other_content))
        assert await refusal(store.contents._refer(REPOSITORY, digest, entry, 0)) == down
        store.transport.status = None
        assert await store.backend.tag(REPOSITORY, "v1") == digest
        assert [each.digest for each in (await store.contents.referrers(REPOSITORY, digest)).manifests] == [first]
        assert await store.backend.tag(REPOSITORY, "v2") is None
        assert await store.backend.tags("alpha/none") == []
        assert await store.backend.blob_size(REPOSITORY, digest_of(b"none")) is None
        await store.contents._refer(REPOSITORY, digest, entry, 0)
        assert len((await store.contents.referrers(REPOSITORY, digest)).manifests) == 2

    with_store(tmp_path, work)


def damaged_text(content):
    return content.replace(b'"schemaVersion":2', b'"schemaVersion": 2')


@pytest.mark.parametrize(
    ("damage", "codes"),
    [
        (damaged_text, {"manifest-damaged"}),
        (lambda _content: None, {"manifest-damaged"}),
        (lambda content: content[:-3], {"registry-backend-unavailable"}),
    ],
    ids=["changed", "lost", "cut"],
)
def test_damage_moves_no_tag_and_forgets_no_referrer(tmp_path, damage, codes):
    async def work(store):
        digest, content = await store.image(tag="v1")
        first, _ = await store.image(subject=(digest, len(content)))
        listed, _, listing = await store.backend.manifest(REPOSITORY, digest.replace(":", "-"))
        for name, kept in ((digest, content), (listed, listing)):
            changed = damage(kept)
            store.file(name).unlink() if changed is None else store.file(name).write_bytes(changed)
        assert await refusal(store.image(tag="v1")) in codes
        assert await refusal(store.image(subject=(digest, len(content)))) in codes
        assert await refusal(store.backend.tag(REPOSITORY, "v1")) in codes
        for name, kept in ((digest, content), (listed, listing)):
            store.file(name).write_bytes(kept)
        assert await store.backend.tag(REPOSITORY, "v1") == digest
        assert await refusal(store.image(tag="v1")) == "tag-immutable"
        second, _ = await store.image(subject=(digest, len(content)))
        found = (await store.contents.referrers(REPOSITORY, digest)).manifests
        assert [each.digest for each in found] == [first, second]

    with_store(tmp_path, work)


def test_blobs_on_their_way_out_share_bounded_room(tmp_path):
    large = os.urandom(5 * 1024 * 1024)

    async def work(store):
        digest = await store.blob(large)
        small = await store.blob(b"small")
        tight = Backend(store.transport, room=2 * len(large))
        tight._room._patience = 0.3
        first, second = [await tight.blob(REPOSITORY, digest, len(large)) for _ in range(2)]
        assert await refusal(tight.blob(REPOSITORY, digest, len(large))) == "registry-busy"
        (await tight.blob(REPOSITORY, small, 10)).close()
        waiting = asyncio.create_task(tight.blob(REPOSITORY, digest, len(large)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        first.close()
        first.close()
        third = await waiting
        assert third.file.read() == large
        assert await refusal(tight.blob(REPOSITORY, digest, len(large))) == "registry-busy"
        second.close()
        third.close()
        store.file(digest).write_bytes(bytes([large[0] ^ 1]) + large[1:])
        for _ in range(3):
            assert await refusal(tight.blob(REPOSITORY, digest, len(large))) == "blob-digest"

    with_store(tmp_path, work)


def test_a_reader_that_stalls_gives_its_room_back():
    async def work():
        room = Room(8 * 1024 * 1024, patience=0.1)

        async def handed(send):
            blob = await room.take(8 * 1024 * 1024)
            blob.file.write(b"x")
            blob.file.seek(0)
            scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "path": "/v2/", "method": "GET", "headers": []}
            await BlobResponse(blob, {}, stall=0.05)(scope, asyncio.Event().wait, send)

        async def never(_message):
            await asyncio.Event().wait()

        async def gone(_message):
            raise OSError

        async def reads(_message):
            return None

        held = await room.take(8 * 1024 * 1024)
        with pytest.raises(RegistryBusy):
            await handed(reads)
        held.close()
        for send in (never, gone, reads):
            await handed(send)
        assert room._free == 8 * 1024 * 1024

    asyncio.run(work())


def test_a_registry_that_dies_is_told_and_started_again(tmp_path):
    async def told_of(event):
        async with asyncio.timeout(10):
            while not any(each["event"] == event for each in told):  # noqa: ASYNC110 - a log has no event to wait for
                await asyncio.sleep(0.02)

    async def go():
        times = ChildTimes(first_pause=0.05, last_pause=0.05)
        process = await RegistryProcess.start(PROGRAM, tmp_path / "registry", times=times)
        process.log.write_bytes(b"what it wrote before\n")
        supervised = asyncio.create_task(process.supervise())
        try:
            os.kill(process.pid, signal.SIGKILL)
            await told_of("child runs")
            process.program = tmp_path / "no-registry"
            os.kill(process.pid, signal.SIGKILL)
            await told_of("child does not start")
        finally:
            supervised.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervised
            await process.stop()
        return process.log

    with structlog.testing.capture_logs() as told:
        log = asyncio.run(go())
    ended = [each for each in told if each["event"] == "child ended"]
    assert (ended[0]["child"], ended[0]["status"]) == ("docker-registry", -signal.SIGKILL)
    assert ended[0]["log"] == str(log)
    assert ended[0]["again_in"] == 0.05
    assert log.read_bytes().startswith(b"what it wrote before\n")
    assert b"no-registry" in log.read_bytes()


def test_who_waits_for_room_gets_it_when_it_is_given_back():
    async def work():
        large = 8 * 1024 * 1024
        room = Room(large, patience=20)
        (await room.take(large)).close()  # something was given back before anybody waited
        held = await room.take(large)
        waiting = asyncio.create_task(room.take(large))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        held.close()
        (await waiting).close()
        small = [await room.take(4 * 1024 * 1024) for _ in range(3)]  # these lie in memory
        for blob in small:
            blob.close()

    asyncio.run(work())
