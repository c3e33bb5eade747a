"""The gateway before a real docker-registry: each refusal, and beside it the same attempt without the fault."""

import asyncio
import uuid
from pathlib import Path

import httpx
import pytest

from umec_core.errors import UmecError
from umec_images.gateway.process import RegistryProcess
from umec_images.oci.client import RegistryClient
from umec_images.oci.manifest import BUNDLE, EMPTY, EMPTY_CONTENT, INDEX, MANIFEST, Descriptor, encode
from umec_images.oci.reference import digest_of


def fresh():
    return f"alpha/app-{uuid.uuid4().hex[:12]}"


async def push_image(client, repository, *, layer=b"layer", tag=None):
    config = await client.push_blob(repository, EMPTY_CONTENT)
    digest = await client.push_blob(repository, layer)
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor(EMPTY, config, len(EMPTY_CONTENT)).to_json(),
            "layers": [Descriptor("application/vnd.oci.image.layer.v1.tar", digest, len(layer)).to_json()],
        }
    )
    return await client.push_manifest(repository, tag, manifest, MANIFEST), digest, manifest


def refusal(registry, work, *arguments, **claims):
    with pytest.raises(UmecError) as caught:
        registry.run(work, *arguments, **claims)
    return caught.value.code


def test_nobody_gets_anything(registry):
    for path in ("/v2/", "/v2/alpha/app/manifests/latest", "/v2/alpha/app/blobs/uploads/", "/v2/alpha/app/tags/list"):
        answer = httpx.get(f"{registry.url}{path}")
        assert answer.status_code == 401
        assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"
        assert answer.json()["errors"][0]["detail"]["code"] == "token-missing"
        assert answer.headers["www-authenticate"].startswith("DPoP ")
    assert registry.send(registry.holder(), "GET", "/v2/").status_code == 200


@pytest.mark.parametrize(
    ("scope", "claims", "code"),
    [
        ("images:pull", {}, "token-scope"),
        ("images:push images:pull", {"tenant": "beta"}, "tenant-foreign"),
        ("images:push images:pull", {"aud": "https://other/"}, "token-audience"),
        ("images:push images:pull", {"exp": 1_700_000_000, "iat": 1_699_999_900}, "token-expired"),
        ("images:push images:pull", {"iss": "https://other"}, "token-invalid"),
        ("images:push images:pull", {"cnf": None}, "token-binding"),
    ],
)
def test_who_may_not_push(registry, scope, claims, code):
    async def push(client):
        await client.push_blob("alpha/app", uuid.uuid4().bytes)

    assert refusal(registry, push, scope, **claims) == code
    registry.run(push)


def test_who_may_not_pull(registry):
    repository = fresh()
    digest, layer, _ = registry.run(lambda client: push_image(client, repository))

    async def pull(client):
        _, _, manifest = await client.manifest(repository, digest)
        return manifest, await client.blob(repository, layer, 100)

    assert refusal(registry, pull, "images:push") == "token-scope"
    assert refusal(registry, pull, tenant="beta") == "tenant-foreign"
    assert registry.run(pull, tenant=None)[1] == b"layer"
    assert registry.run(pull, "images:pull")[1] == b"layer"


def test_a_blob_is_not_mounted_from_another_tenant(registry):
    secret = b"secret of beta"
    registry.run(lambda client: client.push_blob("beta/app", secret), tenant="beta")
    path = f"/v2/{fresh()}/blobs/uploads/?mount={digest_of(secret)}&from=beta/app"
    refused = registry.send(registry.holder(), "POST", path)
    assert (refused.status_code, refused.json()["errors"][0]["detail"]["code"]) == (403, "tenant-foreign")
    assert registry.send(registry.holder(tenant=None), "POST", path).status_code == 201


def test_a_tag_never_moves(registry):
    repository = fresh()
    first, _, _ = registry.run(lambda client: push_image(client, repository, tag="v1"))
    again, _, _ = registry.run(lambda client: push_image(client, repository, tag="v1"))
    assert again == first
    other = refusal(registry, lambda client: push_image(client, repository, layer=b"other", tag="v1"))
    assert other == "tag-immutable"
    registry.run(lambda client: push_image(client, repository, layer=b"other", tag="v2"))
    assert registry.run(lambda client: client.manifest(repository, "v1"))[0] == first


def test_the_list_of_referrers_is_not_written_by_clients(registry):
    repository = fresh()
    digest, _, manifest = registry.run(lambda client: push_image(client, repository))
    reserved = digest.replace(":", "-")
    push = lambda tag: lambda client: client.push_manifest(repository, tag, manifest, MANIFEST)  # noqa: E731
    assert refusal(registry, push(reserved)) == "tag-reserved"
    assert registry.run(push(f"{reserved}.sig")) == digest


def test_a_layer_swapped_in_the_store_is_refused(registry):
    repository, layer = fresh(), uuid.uuid4().bytes
    manifest, digest, _ = registry.run(lambda client: push_image(client, repository, layer=layer))
    pull = lambda client: client.blob(repository, digest, 100)  # noqa: E731
    assert registry.run(pull) == layer
    file = registry.stored(digest)
    file.write_bytes(bytes([layer[0] ^ 1]) + layer[1:])
    assert refusal(registry, pull) == "blob-digest"
    file.write_bytes(layer)
    assert registry.run(pull) == layer
    stored = registry.stored(manifest)
    content = stored.read_bytes()
    stored.write_bytes(content.replace(b'"schemaVersion":2', b'"schemaVersion": 2'))
    assert refusal(registry, lambda client: client.manifest(repository, manifest)) == "manifest-damaged"
    stored.write_bytes(content)
    assert registry.run(lambda client: client.manifest(repository, manifest))[2] == content


def test_a_manifest_that_names_missing_content_is_refused(registry):
    repository = fresh()
    digest, _, manifest = registry.run(lambda client: push_image(client, repository))

    def index(name, size):
        entry = Descriptor(MANIFEST, name, size).to_json()
        content = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
        return lambda client: client.push_manifest(repository, None, content, INDEX)

    assert refusal(registry, index(digest_of(b"missing"), len(manifest))) == "manifest-member-missing"
    assert refusal(registry, index(digest, 1)) == "manifest-invalid"
    registry.run(index(digest, len(manifest)))
    layerless = manifest.replace(digest_of(b"layer").encode(), digest_of(b"missing").encode())
    pushed = refusal(registry, lambda client: client.push_manifest(repository, None, layerless, MANIFEST))
    assert pushed == "manifest-member-missing"


def test_content_must_have_the_stated_digest(registry):
    repository = fresh()
    holder = registry.holder()
    path = f"/v2/{repository}/blobs/uploads/"
    start = registry.send(holder, "POST", path).headers["location"]
    refused = registry.send(holder, "PUT", f"{start}&digest={digest_of(b'other')}", content=b"content")
    assert (refused.status_code, refused.json()["errors"][0]["detail"]["code"]) == (400, "digest-mismatch")
    start = registry.send(holder, "POST", path).headers["location"]
    assert (
        registry.send(holder, "PUT", f"{start}&digest={digest_of(b'content')}", content=b"content").status_code == 201
    )
    _, _, manifest = registry.run(lambda client: push_image(client, repository))
    target = f"/v2/{repository}/manifests/{digest_of(b'other')}"
    refused = registry.send(holder, "PUT", target, content=manifest, headers={"Content-Type": MANIFEST})
    assert refused.json()["errors"][0]["detail"]["code"] == "digest-mismatch"


def test_an_upload_beyond_the_cap_is_refused(registry):
    large = bytes(8 * 1024 * 1024 + 1)
    assert refusal(registry, lambda client: client.push_blob(fresh(), large)) == "upload-too-large"
    assert registry.run(lambda client: client.push_blob(fresh(), large[:-1])) == digest_of(large[:-1])


def test_an_upload_in_parts_is_capped_as_a_whole(registry):
    path, part = f"/v2/{fresh()}/blobs/uploads/", bytes(3 * 1024 * 1024)
    holder = registry.holder()

    def parts(*contents):
        location = registry.send(holder, "POST", path).headers["location"]
        for content in contents:
            answer = registry.send(holder, "PATCH", location, content=content)
            location = answer.headers.get("location", location)
        return answer, location

    refused, location = parts(part, part, part)
    assert (refused.status_code, refused.json()["errors"][0]["detail"]["code"]) == (413, "upload-too-large")
    _, location = parts(part, part)
    refused = registry.send(holder, "PUT", f"{location}&digest={digest_of(part * 3)}", content=part)
    assert (refused.status_code, refused.json()["errors"][0]["detail"]["code"]) == (413, "upload-too-large")
    accepted, location = parts(part, part)
    assert accepted.status_code == 202
    whole = part * 2 + part[: 2 * 1024 * 1024]
    done = registry.send(holder, "PUT", f"{location}&digest={digest_of(whole)}", content=part[: 2 * 1024 * 1024])
    assert done.status_code == 201


def test_twenty_attachers_at_once_all_keep_their_place(registry):
    repository = fresh()
    subject, _, _ = registry.run(lambda client: push_image(client, repository, tag="v1"))

    async def attach_all(client):
        return await asyncio.gather(*(client.attach(repository, subject, f'{{"n": {n}}}'.encode()) for n in range(20)))

    attached = registry.run(attach_all)
    found = registry.run(lambda client: client.referrers(repository, subject, BUNDLE))
    assert len(set(attached)) == 20
    assert {each.digest for each in found} == set(attached)
    assert registry.run(lambda client: client.referrers(repository, subject, "application/spdx+json")) == []
    assert registry.run(lambda client: client.referrers(repository, attached[0])) == []
    assert registry.send(registry.holder(), "GET", f"/v2/{repository}/tags/list").json()["tags"] == ["v1"]


def test_nothing_is_deleted_and_no_other_path_exists(registry):
    holder, repository = registry.holder(), fresh()
    digest, _, _ = registry.run(lambda client: push_image(client, repository))
    refused = registry.send(holder, "DELETE", f"/v2/{repository}/manifests/{digest}")
    assert (refused.status_code, refused.json()["errors"][0]["detail"]["code"]) == (405, "operation-unsupported")
    for path in ("/v2/_catalog", "/v2/alpha/app/more/manifests/v1", "/v2/alpha%2f..%2fbeta/app/manifests/v1"):
        assert registry.send(holder, "GET", path).status_code in {401, 403, 404}
    for path in ("/v2/Alpha/app/manifests/v1", "/v2/alpha/app/manifests/sha256:00", "/v2/alpha/app/blobs/latest"):
        assert registry.send(holder, "GET", path).json()["errors"][0]["detail"]["code"] == "reference-invalid"


def test_a_registry_before_1_1_gets_the_fallback_tag(tmp_path):
    """The client alone, against docker-registry without the gateway."""

    async def attach():
        process = await RegistryProcess.start(Path("/usr/bin/docker-registry"), tmp_path / "registry")
        try:
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(process.socket))) as http:
                client = RegistryClient("http://registry", http)
                subject, _, _ = await push_image(client, "alpha/app")
                first = await client.attach("alpha/app", subject, b"{}")
                second = await client.attach("alpha/app", subject, b'{"a": 1}')
                return {first, second}, await client.referrers("alpha/app", subject, BUNDLE)
        finally:
            await process.stop()

    attached, found = asyncio.run(attach())
    assert {each.digest for each in found} == attached


def test_a_manifest_says_the_true_size_and_kind_of_what_it_names(registry):
    repository = fresh()
    digest, _, manifest = registry.run(lambda client: push_image(client, repository))
    wrong = manifest.replace(b'"size":5', b'"size":6')
    assert (
        refusal(registry, lambda client: client.push_manifest(repository, None, wrong, MANIFEST)) == "manifest-invalid"
    )
    docker = "application/vnd.docker.distribution.manifest.v2+json"

    def index(kind):
        entry = Descriptor(kind, digest, len(manifest)).to_json()
        content = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
        return lambda client: client.push_manifest(repository, None, content, INDEX)

    assert refusal(registry, index(docker)) == "manifest-invalid"
    assert registry.run(index(MANIFEST))
    push = lambda kind: lambda client: client.push_manifest(repository, None, manifest, kind)  # noqa: E731
    for kind in ("text/plain", docker, INDEX):
        assert refusal(registry, push(kind)) == "manifest-invalid"
    assert registry.run(push(MANIFEST)) == digest


def test_a_manifest_is_bounded(registry):
    repository = fresh()
    _, _, manifest = registry.run(lambda client: push_image(client, repository))
    whole = manifest + b" " * (4 * 1024 * 1024 - len(manifest))
    push = lambda content: lambda client: client.push_manifest(repository, None, content, MANIFEST)  # noqa: E731
    assert refusal(registry, push(whole + b" ")) == "manifest-invalid"
    assert registry.run(push(whole)) == digest_of(whole)


def test_a_tag_as_long_as_a_reserved_one_is_a_tag(registry):
    repository, tag = fresh(), "a" * 71
    registry.run(lambda client: push_image(client, repository, tag=tag))
    assert registry.send(registry.holder(), "GET", f"/v2/{repository}/tags/list").json()["tags"] == [tag]


def test_an_upload_is_named_by_the_store_alone(registry):
    holder, repository = registry.holder(), fresh()
    start = registry.send(holder, "POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    name, _, state = start.rpartition("/")[2].partition("?")
    for upload in ("%2e%2e", f"{name}%3Fx", name[:-1], f"{name}%0A"):
        refused = registry.send(holder, "PATCH", f"/v2/{repository}/blobs/uploads/{upload}?{state}", content=b"x")
        error = refused.json()["errors"][0]
        assert (error["detail"]["code"], error["message"]) == ("upload-refused", "this names no upload")
    assert registry.send(holder, "PATCH", start, content=b"x").status_code == 202
