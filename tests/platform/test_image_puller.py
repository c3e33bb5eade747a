"""Images come from a real registry into the content-addressed folder, and a spoilt file there is fetched again."""

import asyncio
import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from umec_core.errors import UmecError
from umec_images.oci.client import RegistryClient
from umec_platform.instances.adapters import RegistryPuller

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
