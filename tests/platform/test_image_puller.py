"""Images come from a real registry into the content-addressed folder, and a spoilt file there is fetched again."""

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from umec_core.errors import UmecError
from umec_images.oci.client import RegistryClient
from umec_platform.instances.images import RECENT, RegistryPuller

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
LAYER = b"a layer" * 1000


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    configuration = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    file = tmp_path / "registry.yml"
    file.write_text(json.dumps(configuration))
    with subprocess.Popen(
        ["docker-registry", "serve", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _descriptor(content: bytes, media_type: str) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def test_an_image_is_pulled_checked_and_mended(registry: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient() as http:
            client = RegistryClient(registry, http)
            for content in (CONFIG, LAYER):
                await client.push_blob("harbour/hello", content)
            layer = _descriptor(LAYER, "application/vnd.oci.image.layer.v1.tar")
            config = _descriptor(CONFIG, "application/vnd.oci.image.config.v1+json")
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
            digest = await client.push_manifest("harbour/hello", "v1", json.dumps(manifest).encode(), MANIFEST)

            puller = RegistryPuller(client, tmp_path / "blobs")
            with pytest.raises(UmecError):
                await puller.pull("harbour/hello", "sha256:" + "0" * 64)
            folders = await asyncio.gather(*(puller.pull("harbour/hello", digest) for _ in range(3)))
            assert set(folders) == {tmp_path / "blobs"}
            found = {path.name: path for path in (tmp_path / "blobs" / "sha256").iterdir()}
            assert set(found) == {
                str(each).removeprefix("sha256:") for each in (digest, config["digest"], layer["digest"])
            }

            spoilt = found[str(layer["digest"]).removeprefix("sha256:")]
            spoilt.write_bytes(LAYER[:-1] + b"X")
            await puller.pull("harbour/hello", digest)
            assert spoilt.read_bytes() == LAYER

    asyncio.run(scenario())


def _image(blobs: Path, *parts: bytes, used: float) -> str:
    """Put the files of an image into the folder, last used at a moment; returns its digest."""
    config, *layers = (_descriptor(part, "application/octet-stream") for part in parts)
    manifest = json.dumps({"config": config, "layers": layers}).encode()
    for content in (manifest, *parts):
        file = blobs / hashlib.sha256(content).hexdigest()
        file.write_bytes(content)
        os.utime(file, (used, used))
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def _keep(folder: Path, digests: set[str], limit: int) -> set[str]:
    """Keep these images within a limit, and return the sorts of files that are left."""
    http = httpx.AsyncClient()
    asyncio.run(RegistryPuller(RegistryClient("http://registry.test", http), folder, max_folder=limit).keep(digests))
    asyncio.run(http.aclose())
    left = {path.read_bytes()[:1] for path in (folder / "sha256").iterdir()} if folder.exists() else set()
    return {one.decode() for one in left if one != b"{"}


def test_what_nothing_runs_is_forgotten_oldest_first_and_only_for_want_of_room(tmp_path: Path) -> None:
    blobs = tmp_path / "sha256"
    assert _keep(tmp_path / "none", set(), 0) == set()
    blobs.mkdir()
    runs = _image(blobs, b"a" * 1000, b"b" * 4000, used=1_000_000.0)
    _image(blobs, b"c" * 1000, b"b" * 4000, used=1_000_000.0)  # shares a layer with it
    _image(blobs, b"d" * 1000, b"e" * 4000, used=1_001_000.0)
    (blobs / ".torn.draft").write_bytes(b"f" * 1000)
    os.utime(blobs / ".torn.draft", (999_999.0, 999_999.0))
    newest = _image(blobs, b"g" * 1000, b"h" * 4000, used=1_002_000.0)
    everything = {path.name: path.stat().st_size for path in blobs.iterdir()}
    assert _keep(tmp_path, {runs}, sum(everything.values())) == set("abcdefgh")
    assert _keep(tmp_path, {runs}, sum(everything.values()) - 1) == set("abcdegh")
    assert _keep(tmp_path, {runs}, sum(everything.values()) - 2001) == set("abdegh")
    assert _keep(tmp_path, {runs}, 0) == set("abgh")
    # What was used a moment before the newest may be wanted still, whatever runs.
    other = time_of(blobs, newest) - RECENT
    _image(blobs, b"i" * 1000, used=other)
    _image(blobs, b"j" * 1000, used=other - 1)
    assert _keep(tmp_path, set(), 0) == set("ghi")


def time_of(blobs: Path, digest: str) -> float:
    return (blobs / digest.removeprefix("sha256:")).stat().st_mtime


def test_a_manifest_that_is_spoilt_protects_itself_alone(tmp_path: Path) -> None:
    blobs = tmp_path / "sha256"
    blobs.mkdir()
    runs = _image(blobs, b"a" * 1000, b"b" * 4000, used=1_000_000.0)
    _image(blobs, b"g" * 1000, used=1_002_000.0)
    for spoilt in (b"", b"[]", b'{"config": 7}', b'{"config": {}, "layers": []}'):
        file = blobs / runs.removeprefix("sha256:")
        file.write_bytes(spoilt or b"?")
        os.utime(file, (1_000_000.0, 1_000_000.0))
        _keep(tmp_path, {runs}, 0)
        assert file.exists()


def test_an_image_that_is_pulled_again_counts_as_used(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient() as http:
            client = RegistryClient(registry, http)
            await client.push_blob("harbour/hello", CONFIG)
            config = _descriptor(CONFIG, "application/vnd.oci.image.config.v1+json")
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [config]}
            digest = await client.push_manifest("harbour/hello", "v1", json.dumps(manifest).encode(), MANIFEST)
            puller = RegistryPuller(client, tmp_path / "blobs", max_folder=0)
            blobs = await puller.pull("harbour/hello", digest) / "sha256"
            for file in blobs.iterdir():
                os.utime(file, (1_000_000.0, 1_000_000.0))
            other = _image(blobs, b"a" * 1000, used=1_000_000.0)
            # What is here and whole is not fetched again.
            monkeypatch.setattr(client, "blob_to_file", None)
            await puller.pull("harbour/hello", digest)
            await puller.keep(set())
            assert (blobs / digest.removeprefix("sha256:")).exists()
            assert (blobs / str(config["digest"]).removeprefix("sha256:")).exists()
            assert not (blobs / other.removeprefix("sha256:")).exists()

    asyncio.run(scenario())


def test_what_should_run_is_kept_and_a_folder_that_cannot_be_tidied_undoes_no_start(
    world: Any, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            first = await world.instantiate()
            await wait_until(lambda: {one[-64:] for one in world.neighbours.kept} == {world.neighbours.pulled[0][-64:]})

            async def broken(_digests: set[str]) -> None:
                tried.append(first)
                raise OSError("the disk is read-only")

            tried: list[str] = []
            monkeypatch.setattr(world.neighbours, "keep", broken)
            second = await world.instantiate()
            await wait_until(lambda: tried)
            assert set(world.host.instances) == {first, second}
            monkeypatch.undo()
            for instance in (first, second):
                await world.order(instance, "terminate", {})
            other = await world.onboard(
                appDId="hello-2", swImageDescriptor=[{"swImage": "harbour/two@" + "sha256:" + "9" * 64}]
            )
            assert other
            made = await world.operate("POST", "/app_lcm/v1/app_instances?tenant=harbour", json={"appDId": "hello-2"})
            wish = {"mecHostInformation": [{"hostId": "host-a"}]}
            assert (await world.order(made.json()["id"], "instantiate", wish))["operationState"] == "COMPLETED"
            await wait_until(lambda: world.neighbours.kept == {"sha256:" + "9" * 64})

    asyncio.run(scenario())
