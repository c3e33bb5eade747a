"""Node images in the registry: pushed, fetched by digest, and refused wherever a file is not the one that was built."""

import asyncio
import hashlib
import json
import uuid

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from umec_core.clock import system_clock
from umec_core.errors import Refused, UmecError
from umec_images.build.signing import provenance, sign_statement
from umec_images.nodeimage.artifact import ARTIFACT, REFERENCE_SET, fetch_image, fetch_references, push_image
from umec_images.nodeimage.artifact.contents import (
    FILES,
    MAX_PAPERS,
    TITLE,
    parse_artifact,
    parse_papers,
    render_artifact,
    title_of,
)
from umec_images.nodeimage.artifact.references import MAX_SET, MAX_SETS
from umec_images.oci.client import RegistryClient
from umec_images.oci.manifest import EMPTY_CONTENT, MANIFEST, MAX_BLOB, Descriptor, encode
from umec_images.oci.reference import digest_of

CONTENT = {
    **{path: f"{path} of the image".encode() for path in FILES if path != "manifest.json"},
    "root.img": b"squashfs" * 300_000,
    "efivars/dbx": b"",
}
"""The files of an image, in small: a root file system of more than one piece, and a variable without content."""
DIGEST = digest_of(b"")


def papers(content=CONTENT, **changes):
    files = {path: {"sha256": hashlib.sha256(each).hexdigest(), "size": len(each)} for path, each in content.items()}
    files["disk.img"] = {"sha256": "ab" * 32, "size": 2_954_887_168}
    return {"name": "street-node", "version": 3, "suite": "bookworm", "files": files} | changes


def raw_of(document):
    return json.dumps(document).encode()


def manifest_of(content=CONTENT, **changes):
    """The artifact's manifest as a document, and the manifest.json that is a layer of it."""
    raw = raw_of(papers(content, **changes))
    return json.loads(render_artifact(parse_papers(raw), raw)), raw


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "built")


def write(folder, content=CONTENT, **changes):
    (folder / "efivars").mkdir(parents=True)
    for path, each in content.items():
        (folder / path).write_bytes(each)
    (folder / "manifest.json").write_bytes(raw_of(papers(content, **changes)))
    return folder


@pytest.fixture
def repository():
    return f"alpha/node-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def image(registry, tmp_path_factory):
    """An image that is in the registry: its folder, repository and digest."""
    folder, repository = write(tmp_path_factory.mktemp("image") / "built"), "alpha/street-node"
    return folder, repository, push(registry, folder, repository).digest


async def anybody():
    """Admits everything."""


def quiet(_path, _done, _size):
    pass


def push(registry, folder, repository, tag="3", heard=quiet):
    return registry.run(lambda client: push_image(client, folder, repository, tag, heard))


def fetch(registry, repository, digest, out, heard=quiet, admitted=anybody):
    return registry.run(lambda client: fetch_image(client, repository, digest, out, heard, admitted=admitted))


def code(work, *arguments, **options):
    """The code by which it is refused."""
    with pytest.raises(UmecError) as caught:
        work(*arguments, **options)
    return caught.value.code


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(registry, repository, document, *blobs):
    """Push a manifest that somebody wrote, with what it needs; return its digest."""

    async def go(client):
        for each in (*CONTENT.values(), *blobs, EMPTY_CONTENT):
            await client.push_blob(repository, each)
        return await client.push_manifest(repository, None, encode(document), MANIFEST)

    return registry.run(go)


# --- there and back --------------------------------------------------------------------------------------------------


def test_what_was_pushed_is_fetched_and_what_is_there_is_not_sent_again(registry, folder, repository, tmp_path):
    heard = []
    pushed = push(registry, folder, repository, heard=lambda *each: heard.append(each))
    size = sum(len(each) for each in content_of(folder).values())
    assert (pushed.size, pushed.sent) == (size, size)
    assert [each for each in heard if each[0] == "root.img"] == [
        ("root.img", done, 2_400_000) for done in (1 << 20, 2 << 20, 2_400_000)
    ]
    heard.clear()
    again = push(registry, folder, repository, heard=lambda *each: heard.append(each))
    assert (again.digest, again.size, again.sent, heard) == (pushed.digest, size, 0, [])
    found = fetch(registry, repository, pushed.digest, tmp_path / "new" / "out", lambda *each: heard.append(each))
    assert (found.name, found.version) == ("street-node", 3)
    assert content_of(tmp_path / "new" / "out") == content_of(folder)
    assert {each[0] for each in heard if each[1] == each[2]} == set(FILES) - {"efivars/dbx"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_it_is_an_artifact_with_a_type_and_a_version_of_its_own(registry, folder, repository):
    pushed = push(registry, folder, repository)
    raw = registry.run(lambda client: client.manifest(repository, "3"))[2]
    assert digest_of(raw) == pushed.digest
    document = json.loads(raw)
    assert document["artifactType"] == ARTIFACT
    assert document["annotations"] == {"org.opencontainers.image.version": "3.0.0"}
    assert {each["annotations"][TITLE]: each["mediaType"] for each in document["layers"]} == {
        title_of(path): kind for path, kind in FILES.items()
    }


def test_the_approval_of_an_image_travels_with_it(registry, repository, tmp_path):
    folder = write(tmp_path / "built", CONTENT | {"approval": b'{"format": 1}'})
    pushed = push(registry, folder, repository)
    fetch(registry, repository, pushed.digest, tmp_path / "out")
    assert content_of(tmp_path / "out") == content_of(folder)
    document, _ = manifest_of(CONTENT | {"approval": b'{"format": 1}'})
    assert document["layers"][-1]["mediaType"] == "application/vnd.umec.node-image.approval.v1+json"
    for layers in ([*document["layers"], document["layers"][-1]], [*document["layers"][:-2], document["layers"][-1]]):
        odd = encode(document | {"layers": layers})  # an approval twice, or in the place of another file
        assert code(parse_artifact, odd, media_type=MANIFEST) == "node-image-artifact-invalid"
    (folder / "approval").write_bytes(b"another one")
    assert code(push, registry, folder, repository, "4") == "node-image-files-differ"


def test_another_image_sends_only_what_is_new(registry, image, tmp_path):
    other = write(tmp_path / "other", CONTENT | {"uki.efi": b"another kernel"}, version=4)
    assert code(push, registry, other, image[1], "3") == "tag-immutable"
    other = write(tmp_path / "next", CONTENT | {"uki.efi": b"the next kernel"}, version=4)
    changed = len(b"the next kernel") + (other / "manifest.json").stat().st_size
    assert push(registry, other, image[1], "4").sent == changed


# --- push ------------------------------------------------------------------------------------------------------------


def test_a_folder_whose_files_are_not_those_of_its_manifest_is_not_pushed(registry, folder, image):
    kernel, sent = folder / "uki.efi", []
    before = kernel.read_bytes()
    told = lambda *each: sent.append(each)  # noqa: E731
    for other in (before[::-1], before + b" "):
        kernel.write_bytes(other)
        assert code(push, registry, folder, "alpha/none", "3", told) == "node-image-files-differ"
    kernel.unlink()
    assert code(push, registry, folder, "alpha/none", "3", told) == "node-image-files-differ"
    assert sent == []
    kernel.write_bytes(before)
    push(registry, folder, image[1])


def test_a_size_that_is_not_the_files_is_not_pushed(registry, folder, image):
    repository = image[1]
    document = papers()
    document["files"]["uki.efi"]["size"] += 1
    (folder / "manifest.json").write_bytes(raw_of(document))
    assert code(push, registry, folder, repository) == "node-image-files-differ"


@pytest.mark.parametrize("change", ["one more", "one less"])
def test_an_image_of_other_files_is_not_pushed(registry, folder, image, change):
    repository = image[1]
    document = papers()
    if change == "one more":
        document["files"]["grub.efi"] = document["files"]["uki.efi"]
    else:
        del document["files"]["root.img"]
    (folder / "manifest.json").write_bytes(raw_of(document))
    assert code(push, registry, folder, repository) == "node-image-files-differ"


def test_a_folder_without_a_manifest_is_not_pushed(registry, folder, image):
    repository = image[1]
    raw = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    assert code(push, registry, folder, repository) == "node-image-manifest-invalid"
    (folder / "manifest.json").write_bytes(b"{}")
    assert code(push, registry, folder, repository) == "node-image-manifest-invalid"
    (folder / "manifest.json").write_bytes(raw.ljust(MAX_PAPERS + 1))
    assert code(push, registry, folder, repository) == "node-image-manifest-invalid"
    (folder / "manifest.json").write_bytes(raw.ljust(MAX_PAPERS))
    push(registry, folder, repository, None)


def test_a_file_that_is_larger_than_a_blob_may_be_is_not_taken(registry, image, tmp_path):
    repository = image[1]
    large = write(tmp_path / "large", CONTENT | {"root.img": bytes(8 * 1024 * 1024 + 1)})
    assert code(push, registry, large, repository) == "upload-too-large"
    push(registry, write(tmp_path / "fits", CONTENT | {"root.img": bytes(8 * 1024 * 1024)}), repository, None)


def test_a_file_that_changes_while_it_is_sent_is_not_named(registry, folder, repository):
    def swap(path, _done, _size):
        if path == "uki.efi":
            (folder / "root.img").write_bytes(b"another")

    assert code(push, registry, folder, repository, "3", swap) == "manifest-member-missing"
    (folder / "root.img").write_bytes(CONTENT["root.img"])
    push(registry, folder, repository)


# --- fetch -----------------------------------------------------------------------------------------------------------


def test_only_a_digest_is_fetched(registry, image, tmp_path):
    _, repository, exact = image
    for name in ("3", "latest", "", exact.removeprefix("sha256:"), exact.upper()):
        assert code(fetch, registry, repository, name, tmp_path / "out") == "reference-invalid"
    assert code(fetch, registry, repository, digest_of(b"another"), tmp_path / "out") == "manifest-unknown"
    fetch(registry, repository, exact, tmp_path / "out")
    assert code(fetch, registry, repository, exact, tmp_path / "out") == "image-folder-taken"


@pytest.mark.parametrize("path", ["root.img", "manifest.json"])
def test_a_file_that_changed_behind_the_gateway_leaves_no_folder(registry, image, tmp_path, path):
    folder, repository, exact = image
    stored = registry.stored(digest_of((folder / path).read_bytes()))
    before = stored.read_bytes()
    try:
        for other in (before[:-1], b"", before + b" ", registry.stored(exact).read_bytes()):
            stored.write_bytes(other)
            assert code(fetch, registry, repository, exact, tmp_path / "new" / "out") == "blob-digest"
        stored.unlink()
        assert code(fetch, registry, repository, exact, tmp_path / "new" / "out") == "blob-unknown"
        assert not list(tmp_path.glob("new/*"))
    finally:
        stored.write_bytes(before)
    fetch(registry, repository, exact, tmp_path / "new" / "out")


# --- what a registry may say -----------------------------------------------------------------------------------------


class Store(httpx.AsyncBaseTransport):
    """A registry without a gateway, which hands out what it has under the names that it was told."""

    def __init__(self, manifest, *blobs):
        self.manifest = encode(manifest)
        self.blobs = {digest_of(each): each for each in (*CONTENT.values(), *blobs)}

    async def handle_async_request(self, request):
        kind, name = request.url.path.split("/")[-2:]
        content = self.manifest if kind == "manifests" else self.blobs[name]
        return httpx.Response(200, headers={"content-type": MANIFEST}, stream=httpx.ByteStream(content))

    def fetch(self, out, heard=quiet, admitted=anybody):
        async def go():
            async with httpx.AsyncClient(transport=self) as http:
                client = RegistryClient("http://registry", http)
                return await fetch_image(client, "a/b", digest_of(self.manifest), out, heard, admitted=admitted)

        return asyncio.run(go())


def test_files_of_another_image_under_the_titles_of_this_one_are_refused(tmp_path):
    document, raw = manifest_of()
    Store(document, raw).fetch(tmp_path / "good")
    kernel, root = titled(document, "uki.efi"), titled(document, "root.img")
    for name in ("digest", "size"):
        kernel[name], root[name] = root[name], kernel[name]
    assert code(Store(document, raw).fetch, tmp_path / "out") == "node-image-files-differ"


@pytest.mark.parametrize("version", [None, "3", "9.0.0", "3.0.1"])
def test_a_version_that_is_promoted_is_the_one_in_the_image(tmp_path, version):
    document, raw = manifest_of()
    Store(document, raw).fetch(tmp_path / "good")
    document["annotations"] = {} if version is None else {"org.opencontainers.image.version": version}
    assert code(Store(document, raw).fetch, tmp_path / "out") == "node-image-artifact-invalid"


def test_a_manifest_that_names_other_files_is_refused(tmp_path):
    document, raw = manifest_of()
    Store(document, raw).fetch(tmp_path / "good")
    less, more = papers(), papers()
    del less["files"]["efivars/dbx"]
    more["files"]["grub.efi"] = more["files"]["uki.efi"]
    for other in (raw_of(less), raw_of(more)):
        titled(document, "manifest.json").update(digest=digest_of(other), size=len(other))
        assert code(Store(document, other).fetch, tmp_path / "out") == "node-image-files-differ"


class Denied(Refused):
    """Somebody denied the image."""

    code = "image-denied"


@pytest.mark.parametrize(("turn", "came"), [(1, False), (2, True)])
def test_what_is_not_admitted_or_no_longer_leaves_no_folder(tmp_path, turn, came):
    store, asked, heard = Store(*manifest_of()), [], []

    async def admitted():
        asked.append(turn)
        if len(asked) == turn:
            raise Denied("denied")

    fetched = code(store.fetch, tmp_path / "new" / "out", lambda *each: heard.append(each), admitted)
    assert (fetched, ("root.img", 2_400_000, 2_400_000) in heard) == ("image-denied", came)
    assert not list(tmp_path.glob("new/*"))
    store.fetch(tmp_path / "new" / "out", quiet, admitted)
    assert asked == [turn] * (turn + 2)


def test_a_file_has_the_size_that_is_said_even_where_its_digest_is_right(tmp_path):
    """A registry that checks no sizes, and a builder who states others than the files have."""
    for more, expected in ((1, "node-image-files-differ"), (-1, "blob-too-large")):
        document = papers()
        document["files"]["uki.efi"]["size"] += more
        raw = raw_of(document)
        manifest = json.loads(render_artifact(parse_papers(raw), raw))
        assert code(Store(manifest, raw).fetch, tmp_path / "out") == expected
    manifest, raw = manifest_of()
    Store(manifest, raw).fetch(tmp_path / "out")


def test_a_manifest_json_without_end_is_not_read(tmp_path):
    manifest, raw = manifest_of()
    layer = next(each for each in manifest["layers"] if each["annotations"][TITLE] == "manifest.json")
    for size, expected in ((MAX_PAPERS, None), (MAX_PAPERS + 1, "blob-too-large")):
        long = raw.ljust(size)
        layer |= {"digest": digest_of(long), "size": MAX_BLOB if expected else size}
        store = Store(manifest, long)
        if expected is None:
            store.fetch(tmp_path / "out")
        else:
            assert code(store.fetch, tmp_path / "other") == expected


# --- the manifests ---------------------------------------------------------------------------------------------------


def titled(document, title):
    return next(each for each in document["layers"] if each["annotations"][TITLE] == title)


def test_an_artifact_has_exactly_the_layers_of_a_node_image():
    def refused(change):
        document, _ = manifest_of()
        change(document)
        return code(parse_artifact, encode(document), media_type=MANIFEST)

    def retitle(title, to):
        return lambda document: titled(document, title)["annotations"].update({TITLE: to})

    invalid = "node-image-artifact-invalid"
    for to in ("../uki.efi", "/uki.efi", "a/uki.efi", "efivars/PK", "", ".", "uki.efi\0", "disk.img", "UKI.EFI"):
        assert refused(retitle("uki.efi", to)) == invalid
    assert refused(retitle("root.img", "uki.efi")) == invalid
    assert refused(lambda document: titled(document, "uki.efi").pop("annotations")) == invalid
    assert refused(lambda document: document["layers"].append(titled(document, "uki.efi"))) == invalid
    assert refused(lambda document: document["layers"].remove(titled(document, "manifest.json"))) == invalid
    assert refused(lambda document: document["layers"].clear()) == invalid
    other = "application/vnd.oci.image.layer.v1.tar+gzip"
    assert refused(lambda document: titled(document, "root.img").update(mediaType=other)) == invalid
    assert refused(lambda document: document.update(artifactType=other)) == invalid
    assert refused(lambda document: document.pop("artifactType")) == invalid
    assert refused(lambda document: document.pop("config")) == "manifest-invalid"
    document, _ = manifest_of()
    document["layers"].reverse()
    layers, version = parse_artifact(encode(document), media_type=MANIFEST)
    assert (set(layers), version) == (set(FILES), "3.0.0")
    assert layers["efivars/PK"].digest == digest_of(CONTENT["efivars/PK"])


def test_an_image_of_an_application_is_no_node_image(registry, repository, tmp_path):
    config = Descriptor("application/vnd.oci.image.config.v1+json", digest_of(EMPTY_CONTENT), 2).to_json()
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
    digest = put(registry, repository, document)
    assert code(fetch, registry, repository, digest, tmp_path / "out") == "node-image-artifact-invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "Street Node"},
        {"name": "../node"},
        {"version": 0},
        {"version": True},
        {"version": "3"},
        {"version": 2**31},
        {"files": []},
        {"files": {"uki.efi": {"sha256": "ab" * 31, "size": 1}}},
        {"files": {"uki.efi": {"sha256": "AB" * 32, "size": 1}}},
        {"files": {"uki.efi": {"sha256": "ab" * 32, "size": -1}}},
        {"files": {"uki.efi": {"sha256": "ab" * 32, "size": MAX_BLOB + 1}}},
        {"files": {"uki.efi": {"sha256": "ab" * 32, "size": 1, "url": "http://elsewhere"}}},
    ],
    ids=str,
)
def test_a_manifest_json_says_what_an_image_is(change):
    assert code(parse_papers, raw_of(papers() | change)) == "node-image-manifest-invalid"
    found = parse_papers(raw_of(papers() | {"more": "than the last builder said"}))
    assert (found.name, found.version, found.files["efivars/dbx"]) == ("street-node", 3, (DIGEST, 0))


def test_a_manifest_json_says_each_thing_once():
    raw = raw_of(papers())
    twice = raw.replace(b"{", b'{"version": 9, ', 1)
    assert code(parse_papers, twice) == "node-image-manifest-invalid"
    assert parse_papers(raw).version == 3


DOCUMENT = papers()
VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.dictionaries(st.text(), st.none(), max_size=2)


@given(
    raw=st.binary(max_size=200)
    | st.builds(lambda name, value: raw_of(DOCUMENT | {name: value}), st.sampled_from(sorted(DOCUMENT)), VALUES)
)
@example(raw=b"[" * 100_000)
def test_any_bytes_are_a_manifest_json_or_its_one_error(raw):
    try:
        assert parse_papers(raw).version >= 1
    except UmecError as error:
        assert error.code == "node-image-manifest-invalid"  # noqa: PT017 - a value is as good


LAYER = st.builds(
    lambda title, kind, size: Descriptor(kind, DIGEST, size, annotations={TITLE: title}).to_json(),
    st.sampled_from([title_of(path) for path in FILES]) | st.text(max_size=20),
    st.sampled_from(sorted(set(FILES.values()))),
    st.integers(0, MAX_BLOB),
)


@given(layers=st.lists(LAYER, max_size=20), kind=st.sampled_from([ARTIFACT, MANIFEST]))
def test_any_layers_are_those_of_an_image_or_an_error(layers, kind):
    document, _ = manifest_of()
    document |= {"layers": layers or document["layers"], "artifactType": kind}
    try:
        found, _ = parse_artifact(encode(document), media_type=MANIFEST)
    except UmecError as error:
        assert error.code == "node-image-artifact-invalid"  # noqa: PT017 - a value is as good
    else:
        assert (set(found), kind) == (set(FILES), ARTIFACT)


@given(name=st.from_regex(r"\A[a-z0-9]{1,10}\Z"), version=st.integers(1, 2**31 - 1), sizes=st.integers(0, MAX_BLOB))
def test_what_is_written_is_what_is_read(name, version, sizes):
    document = papers(name=name, version=version)
    document["files"]["root.img"]["size"] = sizes
    raw = raw_of(document)
    found = parse_papers(raw)
    layers, promoted = parse_artifact(render_artifact(found, raw), media_type=MANIFEST)
    assert {path: (each.digest, each.size) for path, each in layers.items()} == {
        path: each for path, each in found.files.items() if path != "disk.img"
    } | {"manifest.json": (digest_of(raw), len(raw))}
    assert promoted == f"{version}.0.0"


# --- reference sets --------------------------------------------------------------------------------------------------


def attach(registry, repository, digest, *contents):
    async def go(client):
        for each in contents:
            await client.attach(repository, digest, each, REFERENCE_SET)

    registry.run(go)


def references(registry, repository, digest):
    return registry.run(lambda client: fetch_references(client, repository, digest))


def test_reference_sets_are_attached_to_the_image(registry, image):
    _, repository, digest = image
    assert references(registry, repository, digest) == []
    registry.run(lambda client: client.attach(repository, digest, b"an SBOM", "application/vnd.cyclonedx+json"))
    large = b"x" * (1024 * 1024)
    attach(registry, repository, digest, b"one", large)
    assert references(registry, repository, digest) == [b"one", large]


def test_what_is_listed_as_a_reference_set_and_is_none_is_refused():
    """A registry without a gateway, which lists what is about another image."""
    good = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": REFERENCE_SET,
        "config": Descriptor("application/vnd.oci.empty.v1+json", digest_of(b"{}"), 2).to_json(),
        "layers": [Descriptor(REFERENCE_SET, digest_of(b"a set"), 5).to_json()],
        "subject": Descriptor(MANIFEST, DIGEST, 0).to_json(),
    }

    def found(change, content=b"a set", times=1):
        raw = encode({name: each for name, each in (good | change).items() if each is not None})
        entry = Descriptor(MANIFEST, digest_of(raw), len(raw), REFERENCE_SET).to_json()
        index = encode({"schemaVersion": 2, "manifests": [entry] * times})
        answers = {"referrers": index, "manifests": raw, "blobs": content}

        async def answer(request):
            return httpx.Response(
                200,
                headers={"content-type": MANIFEST},
                stream=httpx.ByteStream(answers[request.url.path.split("/")[-2]]),
            )

        async def go():
            async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
                return await fetch_references(RegistryClient("http://registry", http), "a/b", DIGEST)

        return asyncio.run(go())

    assert found({}, times=MAX_SETS) == [b"a set"] * MAX_SETS
    assert code(found, {}, times=MAX_SETS + 1) == "attachments-too-many"
    assert code(found, {"subject": None}) == "manifest-invalid"
    assert code(found, {"subject": Descriptor(MANIFEST, digest_of(b"other"), 5).to_json()}) == "manifest-invalid"
    assert code(found, {"layers": []}) == "manifest-invalid"
    assert code(found, {"layers": good["layers"] * 2}) == "manifest-invalid"
    assert code(found, {}, b"a sex") == "blob-digest"
    long = bytes(MAX_SET + 1)
    layers = [Descriptor(REFERENCE_SET, digest_of(long), len(long)).to_json()]
    assert code(found, {"layers": layers}, long) == "blob-too-large"
    layers = [Descriptor(REFERENCE_SET, digest_of(long[1:]), MAX_SET).to_json()]
    assert found({"layers": layers}, long[1:]) == [long[1:]]


# --- the pipeline of applications ------------------------------------------------------------------------------------


def test_a_node_image_passes_the_stages_of_an_application(registry, image, tmp_path):
    """Signed, promoted once to each stage, kept from going back, and denied: nothing of it knows node images."""
    _, repository, first = image
    operator = registry.holder("images:promote images:admin images:pull", tenant=None, client_id="operator")

    def ask(method, path, **body):
        answer = registry.send(operator, method, f"/images/v1/{path}", **body)
        return answer.json().get("code"), answer.json()

    def promote(digest, stage, **more):
        wanted = {"repository": repository, "digest": digest, "stage": stage, **more}
        return ask("POST", "promotions", json=wanted)[0]

    def sign(digest):
        subject = f"{registry.issuer.url}/identity/v1/clients/alpha-builder"
        statement = provenance(repository=repository, digest=digest, builder=subject, report=None, now=system_clock())
        config = httpx.get(f"{registry.url}/sigstore/client_trust_config.json").text
        token = registry.issuer.identity(sub=subject)
        bundle = sign_statement(statement, trust_config=config, identity_token=token, ca="")
        registry.run(lambda client: client.attach(repository, digest, bundle))

    assert promote(first, "staging") == "image-unsigned"
    sign(first)
    assert promote(first, "production") == "promotion-denied"
    for stage in ("staging", "production"):
        assert promote(first, stage) is None
        assert promote(first, stage) == "promotion-exists"
    older = push(registry, write(tmp_path / "older", version=2), repository, "2").digest
    sign(older)
    assert promote(older, "staging") == "promotion-rollback"
    newer = push(registry, write(tmp_path / "newer", version=10), repository, "10").digest
    sign(newer)
    assert promote(newer, "staging") is None
    assert promote(newer, "production", minimum=True) is None
    summaries = registry.run(
        lambda client: client.referrers(repository, newer, "application/vnd.dsse.envelope.v1+json")
    )
    assert len(summaries) == 2

    def admission(digest):
        query = f"admission?tenant=alpha&repository={repository}&digest={digest}&stage=production"
        said = ask("GET", query)[1]
        return said["admitted"] or said["code"]

    assert admission(first) == "image-rollback"
    assert admission(newer) is True
    assert ask("POST", "denials", json={"digest": newer, "reason": "recalled"})[0] is None
    assert admission(newer) == "image-denied"
    assert ask("DELETE", f"denials/{newer}")[0] is None
    assert admission(newer) is True
