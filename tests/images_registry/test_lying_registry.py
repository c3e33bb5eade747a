"""A registry that lies, or a store: each lie alone is found out by the client, or by the gateway before it."""

import asyncio
import json

import httpx
import pytest

from umec_core.errors import UmecError
from umec_images.gateway.backend import Backend
from umec_images.gateway.content import MAX_CARRIED, OWN_PLACES, Contents
from umec_images.oci.client import MAX_BUNDLE, RegistryClient
from umec_images.oci.errors import LayoutInvalid
from umec_images.oci.layout import Layout
from umec_images.oci.manifest import (
    BUNDLE,
    EMPTY,
    INDEX,
    MANIFEST,
    MAX_DESCRIPTORS,
    MAX_MANIFEST,
    Descriptor,
    encode,
    parse_index,
)
from umec_images.oci.manifest import parse_manifest as read_manifest
from umec_images.oci.reference import check_repository, digest_of, parse_reference
from umec_images.promotion.evidence import ENVELOPE, MAX_ATTACHMENTS, fetch_attached

REPOSITORY = "alpha/app"
BLOB = b"a blob"
SIZE = len(BLOB)
DIGEST, OTHER = digest_of(BLOB), digest_of(b"another")
CONFIG = Descriptor(EMPTY, digest_of(b"{}"), 2).to_json()
IMAGE = encode({"schemaVersion": 2, "mediaType": MANIFEST, "config": CONFIG, "layers": []})


class Liar(httpx.AsyncBaseTransport):
    """Answers each method and kind of path as it was told to; {} for what it was not told."""

    def __init__(self, **answers):
        self.answers = {"HEAD_blobs": (404, b"", {}), **answers}

    async def handle_async_request(self, request):
        kind = next(kind for kind in ("uploads", "blobs", "manifests", "referrers", "tags") if kind in request.url.path)
        await request.aread()
        status, content, headers = self.answers.get(f"{request.method}_{kind}", (200, b"{}", {}))
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        return httpx.Response(status, headers=raw, stream=httpx.ByteStream(content))


def client_says(work, **answers):
    """Return what a client of a liar gives, or the code by which it refuses."""

    async def go():
        async with httpx.AsyncClient(transport=Liar(**answers)) as http:
            try:
                return await work(RegistryClient("http://registry", http))
            except UmecError as refusal:
                return refusal.code

    return asyncio.run(go())


def gateway_says(work, **answers):
    async def go():
        backend = Backend(Liar(**answers))
        try:
            return await work(backend)
        except UmecError as refusal:
            return refusal.code
        finally:
            await backend.close()

    return asyncio.run(go())


def test_a_manifest_has_the_digest_by_which_it_was_asked_for():
    def ask(reference, content):
        answer = (200, content, {"content-type": MANIFEST})
        return client_says(lambda client: client.manifest(REPOSITORY, reference), GET_manifests=answer)

    assert ask(digest_of(IMAGE), IMAGE) == (digest_of(IMAGE), MANIFEST, IMAGE)
    assert ask(digest_of(IMAGE), IMAGE + b" ") == "blob-digest"
    large = b" " * (MAX_MANIFEST + 1)
    assert ask(digest_of(large), large) == "blob-too-large"
    assert ask(digest_of(large[1:]), large[1:])[0] == digest_of(large[1:])


def test_a_blob_has_its_digest_and_at_most_its_size():
    def ask(answer, size=SIZE):
        return client_says(lambda client: client.blob(REPOSITORY, DIGEST, size), GET_blobs=answer)

    assert ask((200, BLOB, {})) == BLOB
    assert ask((200, BLOB, {}), len(BLOB) - 1) == "blob-too-large"
    assert ask((200, b"a blot", {})) == "blob-digest"
    assert ask((404, BLOB, {})) == "blob-unknown"
    assert ask((500, BLOB, {})) == "registry-refused"


def test_what_is_there_is_not_sent_again_and_what_is_not_goes_to_this_registry_only():
    def ask(head, location="/v2/alpha/app/blobs/uploads/1"):
        answers = {"HEAD_blobs": (head, b"", {}), "POST_uploads": (202, b"", {"location": location})}
        return client_says(lambda client: client.push_blob(REPOSITORY, BLOB), **answers, PUT_uploads=(201, b"", {}))

    assert ask(200, "http://elsewhere/upload") == DIGEST
    assert ask(404) == DIGEST
    for elsewhere in ("http://elsewhere/upload", "http://registry.elsewhere/upload", "//elsewhere/x"):
        assert ask(404, elsewhere) == "registry-refused"
    assert client_says(lambda client: client.has_blob(REPOSITORY, DIGEST), HEAD_blobs=(200, b"", {})) is True
    assert client_says(lambda client: client.has_blob(REPOSITORY, DIGEST), HEAD_blobs=(404, b"", {})) is False
    assert (
        client_says(lambda client: client.has_blob(REPOSITORY, DIGEST), HEAD_blobs=(500, b"", {})) == "registry-refused"
    )


def test_a_registry_that_stored_something_else_is_found_out():
    def ask(**headers):
        push = lambda client: client.push_manifest(REPOSITORY, None, IMAGE, MANIFEST)  # noqa: E731
        return client_says(push, PUT_manifests=(201, b"", headers))

    assert ask() == digest_of(IMAGE)
    assert ask(**{"docker-content-digest": digest_of(IMAGE)}) == digest_of(IMAGE)
    assert ask(**{"docker-content-digest": OTHER}) == "blob-digest"


def test_a_list_of_referrers_that_did_not_come_is_not_an_empty_one():
    index = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})

    def ask(status):
        return client_says(lambda client: client.referrers(REPOSITORY, DIGEST), GET_referrers=(status, index, {}))

    assert ask(200) == []
    assert ask(500) == "registry-refused"


def test_an_attachment_is_bounded():
    def ask(content):
        answers = {"GET_manifests": (200, IMAGE, {"content-type": MANIFEST}), "HEAD_blobs": (200, b"", {})}
        stored = (201, b"", {"oci-subject": digest_of(IMAGE)})
        attach = lambda client: client.attach(REPOSITORY, digest_of(IMAGE), content)  # noqa: E731
        return client_says(attach, **answers, PUT_manifests=stored)

    assert ask(bytes(MAX_BUNDLE + 1)) == "blob-too-large"
    assert ask(bytes(MAX_BUNDLE)).startswith("sha256:")


def test_the_gateway_takes_no_fault_for_an_answer():
    def put(status):
        answer = (status, b"", {})
        return gateway_says(lambda store: store.put_manifest(REPOSITORY, "v1", IMAGE, MANIFEST), PUT_manifests=answer)

    assert [put(status) for status in (201, 400, 404, 499, 500)] == [None, *["upload-refused"] * 3, UNAVAILABLE]

    def size(status, length):
        answer = (status, b"", {} if length is None else {"content-length": length})
        return gateway_says(lambda store: store.blob_size(REPOSITORY, DIGEST), HEAD_blobs=answer)

    assert (size(200, "7"), size(404, "7"), size(500, "7")) == (7, None, UNAVAILABLE)
    for length in ("", "x", "-1", "\xb2"):
        assert size(200, length) == UNAVAILABLE


UNAVAILABLE = "registry-backend-unavailable"


def test_a_blob_of_the_store_is_what_it_said():
    def read(head, get, content, limit=100, stated=SIZE):
        async def work(store):
            blob = await store.blob(REPOSITORY, digest_of(content), limit)
            try:
                return blob.file.read()
            finally:
                blob.close()

        answers = {"HEAD_blobs": (head, b"", {"content-length": str(stated)}), "GET_blobs": (get, content, {})}
        return gateway_says(work, **answers)

    assert read(200, 200, BLOB) == BLOB
    assert read(404, 200, BLOB) == "blob-unknown"
    assert read(200, 404, BLOB) == "blob-unknown"
    assert read(200, 500, BLOB) == UNAVAILABLE
    assert read(200, 200, BLOB, limit=len(BLOB) - 1) == "blob-too-large"
    assert read(200, 200, BLOB, stated=len(BLOB) - 1) == "blob-digest"


def test_a_document_of_the_store_is_bounded():
    large = b" " * (MAX_MANIFEST + 1)

    def read(content):
        reference = digest_of(content)
        return gateway_says(lambda store: store.manifest(REPOSITORY, reference), GET_manifests=(200, content, {}))

    assert read(large) == "blob-too-large"
    assert read(large[1:])[0] == digest_of(large[1:])


def test_how_much_of_an_upload_is_there():
    def size(status, **headers):
        path = "/v2/alpha/app/blobs/uploads/1"
        return gateway_says(lambda store: store.upload_size(path, ""), GET_uploads=(status, b"", headers))

    assert [size(204, range=text) for text in ("0-0", "0-1", "0-99")] == [0, 2, 100]
    assert (size(404, range="0-1"), size(500, range="0-1")) == ("upload-refused", UNAVAILABLE)
    for text in ("", "1-5", "0-", "0-x", "0-\xb2", "-1", "bytes=0-1"):
        assert size(204, range=text) == UNAVAILABLE
    assert size(204) == UNAVAILABLE


# --- lists of referrers ----------------------------------------------------------------------------------------------


def referrer(**annotations):
    subject = Descriptor(MANIFEST, digest_of(IMAGE), len(IMAGE)).to_json()
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": CONFIG, "layers": [], "subject": subject}
    return encode(manifest | {"annotations": annotations})


def refer(known, content, **own):
    """Push a referrer of an image that has referrers already; return the code of the refusal."""
    index = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [each.to_json() for each in known]})
    answers = {
        "HEAD_blobs": (200, b"", {"content-length": "2"}),
        "PUT_manifests": (201, b"", {}),
        "GET_manifests": (200, index, {"content-type": INDEX, "docker-content-digest": digest_of(index)}),
    }
    push = lambda store: Contents(store).push(REPOSITORY, digest_of(content), content, MANIFEST, **own)  # noqa: E731
    return gateway_says(push, **answers)


def entries(count, kind=None):
    return [Descriptor(MANIFEST, f"sha256:{number:064x}", 2, kind) for number in range(count)]


def test_a_list_of_referrers_is_bounded_in_number_and_size():
    assert refer(entries(MAX_DESCRIPTORS), referrer(), own=True) == "referrers-full"
    assert refer(entries(MAX_DESCRIPTORS - OWN_PLACES), referrer()) == "referrers-full"
    assert refer(entries(MAX_DESCRIPTORS - OWN_PLACES), referrer(), own=True).subject == digest_of(IMAGE)
    assert refer(entries(MAX_DESCRIPTORS - OWN_PLACES - 1), referrer()).subject == digest_of(IMAGE)
    long = "x" * (MAX_MANIFEST - 10_000)
    large = [Descriptor(MANIFEST, f"sha256:{1:064x}", 2, annotations={"a": "x" * 20_000})]
    assert refer(large, referrer(a=long)) == "referrers-full"
    assert refer([], referrer(a=long)).subject == digest_of(IMAGE)
    full = [Descriptor(MANIFEST, f"sha256:{1:064x}", 2, annotations={"a": "x" * (MAX_MANIFEST - 8 * 1024)})]
    assert refer(full, referrer()) == "referrers-full"
    assert refer(full, referrer(), own=True).subject == digest_of(IMAGE)


def test_a_list_carries_manifests_while_there_is_room():
    stored = {}

    class Store(Liar):
        async def handle_async_request(self, request):
            answer = await super().handle_async_request(request)
            if request.method == "PUT":
                stored[request.url.path.rpartition("/")[2]] = request.content
            return answer

    def listed(size):
        """What the list says of a referrer of that size, beside one that is there."""
        there = Descriptor(MANIFEST, digest_of(b"x" * size), size, data=b"x" * size)
        index = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [there.to_json()]})
        answers = {
            "HEAD_blobs": (200, b"", {"content-length": "2"}),
            "PUT_manifests": (201, b"", {}),
            "GET_manifests": (200, index, {"content-type": INDEX, "docker-content-digest": digest_of(index)}),
        }

        async def go():
            backend = Backend(Store(**answers))
            content = referrer()
            await Contents(backend).push(REPOSITORY, digest_of(content), content, MANIFEST)
            await backend.close()
            return parse_index(stored[digest_of(IMAGE).replace(":", "-")]).manifests[1].data

        return asyncio.run(go())

    assert listed(MAX_CARRIED - len(referrer())) == referrer()
    assert listed(MAX_CARRIED - len(referrer()) + 1) is None


def test_what_came_along_is_not_asked_for_again():
    def fetched(*, embedded):
        layer = Descriptor(BUNDLE, DIGEST, SIZE, data=BLOB if embedded else None).to_json()
        manifest = encode(json.loads(referrer()) | {"artifactType": BUNDLE, "layers": [layer]})
        entry = Descriptor(MANIFEST, digest_of(manifest), len(manifest), BUNDLE, data=manifest)
        index = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry.to_json()]})
        answers = {"GET_manifests": (200, IMAGE, {"content-type": MANIFEST}), "GET_referrers": (200, index, {})}
        work = lambda client: fetch_attached(client, REPOSITORY, digest_of(IMAGE))  # noqa: E731
        return client_says(work, **answers, GET_blobs=(500, b"", {}))

    assert [each.content for each in fetched(embedded=True).bundles] == [BLOB]
    assert fetched(embedded=False) == "registry-refused"


@pytest.mark.parametrize("kind", [BUNDLE, ENVELOPE])
def test_what_clients_attach_leaves_room_for_the_summaries(kind):
    attachment = encode(json.loads(referrer()) | {"artifactType": kind})
    theirs = MAX_ATTACHMENTS - OWN_PLACES
    assert refer(entries(theirs, BUNDLE), attachment) == "attachments-too-many"
    assert refer(entries(theirs - 1, BUNDLE), attachment).subject == digest_of(IMAGE)
    assert refer(entries(theirs, BUNDLE), referrer()).subject == digest_of(IMAGE)  # nobody reads that
    assert refer(entries(theirs, BUNDLE), attachment, own=True).subject == digest_of(IMAGE)
    assert refer(entries(MAX_ATTACHMENTS, BUNDLE), attachment, own=True) == "attachments-too-many"


# --- names, layouts, manifests ---------------------------------------------------------------------------------------


def code(work, *arguments, **named):
    with pytest.raises(UmecError) as caught:
        work(*arguments, **named)
    return caught.value.code


def test_names_are_bounded_and_hosts_are_hosts():
    assert check_repository("alpha/" + "a" * 249)
    assert code(check_repository, "alpha/" + "a" * 250) == "reference-invalid"
    assert parse_reference("edge.test:5443/alpha/app").host == "edge.test:5443"
    for host in ("ed ge", "edge:port", "-/", "[::1", "a" * 254):
        assert code(parse_reference, f"{host}/alpha/app") == "reference-invalid"


def test_a_layout_holds_exactly_one_image(tmp_path):
    layout = Layout(tmp_path)
    layout.prepare()
    layout.put_image(IMAGE, "v1")
    assert layout.image().digest == digest_of(IMAGE)
    index = json.loads((tmp_path / "index.json").read_bytes())
    for manifests in ([], index["manifests"] * 2):
        (tmp_path / "index.json").write_bytes(encode(index | {"manifests": manifests}))
        assert code(layout.image) == "layout-invalid"
    text = encode(index)
    (tmp_path / "index.json").write_bytes(text + b" " * (MAX_MANIFEST - len(text)))
    assert layout.image().digest == digest_of(IMAGE)
    (tmp_path / "index.json").write_bytes(text + b" " * (MAX_MANIFEST - len(text) + 1))
    with pytest.raises(LayoutInvalid):
        layout.image()


def test_a_manifest_is_one_kind_of_document_in_and_outside_of_itself():
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    assert read_manifest(IMAGE, media_type=MANIFEST).media_type == MANIFEST
    assert code(read_manifest, IMAGE, media_type=docker) == "manifest-invalid"
    assert code(read_manifest, IMAGE, media_type="text/plain") == "manifest-invalid"
