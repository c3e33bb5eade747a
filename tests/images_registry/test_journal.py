"""What the images service writes into its audit log, and who may read it."""

import uuid

import pytest

from umec_core.audit import AuditError, verify_export
from umec_core.errors import UmecError
from umec_core.jose import public_key
from umec_images.oci.manifest import EMPTY, EMPTY_CONTENT, MANIFEST, Descriptor, encode


def export(registry, scope="images:admin"):
    return registry.send(registry.holder(scope, tenant=None), "GET", "/images/v1/audit")


def push(registry, repository, layer, tag):
    async def work(client):
        config = await client.push_blob(repository, EMPTY_CONTENT)
        blob = await client.push_blob(repository, layer)
        layers = [Descriptor("application/vnd.oci.image.layer.v1.tar", blob, len(layer)).to_json()]
        described = Descriptor(EMPTY, config, len(EMPTY_CONTENT)).to_json()
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
        return blob, await client.push_manifest(repository, tag, encode(manifest), MANIFEST)

    return registry.run(work)


def test_only_an_administrator_reads_the_log(registry):
    assert (export(registry, "images:pull").status_code, export(registry).status_code) == (403, 200)


def test_pushes_refusals_and_damage_are_written_down(registry):
    repository, layer = f"alpha/journal-{uuid.uuid4().hex[:8]}", uuid.uuid4().bytes
    blob, digest = push(registry, repository, layer, "v1")
    with pytest.raises(UmecError):
        push(registry, repository, layer + b"!", "v1")
    registry.stored(blob).write_bytes(b"?" * len(layer))
    with pytest.raises(UmecError):
        registry.run(lambda client: client.blob(repository, blob, 100))
    log = export(registry).json()
    about = [entry for entry in log["entries"] if repository in entry["subject"]]
    found = [(entry["action"], entry["outcome"], entry.get("code")) for entry in about]
    assert found == [
        ("manifest-pushed", "done", None),
        ("manifest-pushed", "refused", "tag-immutable"),
        ("content-read", "refused", "blob-digest"),
    ]
    assert about[0]["subject"] == f"{repository}@{digest}"
    key = public_key(registry.send(registry.holder(), "GET", "/images/v1/audit-key").json())
    verify_export(log, key)
    log["entries"][0]["actor"] = "somebody else"
    with pytest.raises(AuditError):
        verify_export(log, key)


def test_strangers_do_not_make_the_log_grow(registry):
    before = len(export(registry).json()["entries"])
    with pytest.raises(UmecError):
        registry.run(lambda client: client.push_blob("beta/app", uuid.uuid4().bytes))
    assert registry.send(registry.holder(exp=1_700_000_000, iat=1_699_999_900), "GET", "/v2/").status_code == 401
    assert len(export(registry).json()["entries"]) == before
