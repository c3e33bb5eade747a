"""Every parser: any input gives a value or its one error, and what is written reads the same."""

import contextlib
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from umec_images.authority import der
from umec_images.authority.certificate import prove_key
from umec_images.authority.errors import CsrInvalid, CsrProofInvalid, TimestampRequestInvalid
from umec_images.authority.timestamp import parse_request
from umec_images.oci.errors import ManifestInvalid, ReferenceInvalid
from umec_images.oci.manifest import INDEX, MANIFEST, Descriptor, encode, parse_index, parse_manifest
from umec_images.oci.reference import Reference, parse_reference

digests = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
names = st.from_regex(r"[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,8})?", fullmatch=True)
references = st.builds(
    Reference,
    repository=st.tuples(st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True), names).map("/".join),
    host=st.none() | st.sampled_from(["edge.test:5443", "127.0.0.1", "[::1]:5443"]),
    tag=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    digest=st.none() | digests,
)
descriptors = st.builds(
    Descriptor,
    media_type=st.sampled_from([MANIFEST, "application/x.y+json"]),
    digest=digests,
    size=st.integers(0, 1 << 40),
    artifact_type=st.none() | st.just("application/spdx+json"),
    annotations=st.dictionaries(st.text(), st.text(), max_size=2),
)


@given(references)
def test_a_reference_reads_as_it_is_written(reference):
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=80) | st.from_regex(r"[a-z/:@.]{1,40}", fullmatch=True))
def test_any_text_is_a_reference_or_refused(text):
    try:
        read = parse_reference(text)
    except ReferenceInvalid:
        return
    assert str(read) == text


@pytest.mark.parametrize(
    "text", ["app", "a/b/c/d", "A/app", "a/app:", "a/app@sha256:0", "../app", "a/..", "a/app:-x", "a/b\n"]
)
def test_these_are_no_references(text):
    with pytest.raises(ReferenceInvalid):
        parse_reference(text)


@given(st.lists(descriptors, max_size=3), st.none() | descriptors)
def test_a_manifest_reads_as_it_is_written(layers, subject):
    config = Descriptor("application/vnd.oci.empty.v1+json", f"sha256:{'0' * 64}", 2)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.to_json()}
    document["layers"] = [each.to_json() for each in layers]
    if subject is not None:
        document["subject"] = subject.to_json()
    manifest = parse_manifest(encode(document), media_type=MANIFEST)
    assert (list(manifest.layers), manifest.subject, manifest.config) == (layers, subject, config)
    del document["config"], document["layers"]
    document |= {"mediaType": INDEX, "manifests": [each.to_json() for each in layers]}
    assert list(parse_index(encode(document)).manifests) == layers


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode))
def test_any_bytes_are_a_manifest_or_refused(data):
    for parse in (parse_manifest, parse_index):
        with pytest.raises(ManifestInvalid):
            parse(data)


@pytest.mark.parametrize(
    "change",
    [
        {"manifests": []},
        {"mediaType": INDEX},
        {"schemaVersion": 1},
        {"config": {"mediaType": "a/b", "digest": "sha512:00", "size": 1}},
        {"config": {"mediaType": "a/b", "digest": f"sha256:{'0' * 64}", "size": -1}},
        {"config": {"mediaType": "a/b", "digest": f"sha256:{'0' * 64}", "size": 1, "urls": ["https://x"]}},
    ],
)
def test_these_are_no_manifests(change):
    config = Descriptor("application/vnd.oci.empty.v1+json", f"sha256:{'0' * 64}", 2).to_json()
    good = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
    parse_manifest(encode(good))
    with pytest.raises(ManifestInvalid):
        parse_manifest(encode(good | change))
    with pytest.raises(ManifestInvalid):
        parse_manifest(encode(good), media_type=INDEX)
    with pytest.raises(ManifestInvalid):
        parse_manifest(encode(good).replace(b"{", b'{"schemaVersion":2,', 1))


@pytest.mark.parametrize("other", [b"", b"conten", b"content ", b"CONTENT"])
def test_what_is_embedded_in_a_descriptor_is_what_it_names(other):
    kind, digest = "application/octet-stream", f"sha256:{hashlib.sha256(b'content').hexdigest()}"
    config = Descriptor("application/vnd.oci.empty.v1+json", f"sha256:{'0' * 64}", 2).to_json()
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config}
    good = Descriptor(kind, digest, 7, data=b"content")
    assert parse_manifest(encode(document | {"layers": [good.to_json()]})).layers == (good,)
    named = [Descriptor(kind, digest, 7, data=other).to_json(), good.to_json() | {"data": "Y29udGVudA"}]
    if other:
        named.append(Descriptor(kind, f"sha256:{hashlib.sha256(other).hexdigest()}", 8, data=other[:7]).to_json())
    for descriptor in named:
        with pytest.raises(ManifestInvalid):
            parse_manifest(encode(document | {"layers": [descriptor]}))


@given(st.binary(max_size=200), st.booleans())
def test_a_time_stamp_request_reads_as_a_client_writes_it(message, nonce):
    builder = TimestampRequestBuilder().hash_algorithm(HashAlgorithm.SHA256).data(message or b"m").nonce(nonce=nonce)
    request = parse_request(builder.build().as_bytes())
    assert request.imprint == hashlib.sha256(message or b"m").digest()
    assert (request.nonce is not None) == nonce


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda data: der.tlv(der.SEQUENCE, data)))
def test_any_bytes_are_a_time_stamp_request_or_refused(data):
    with pytest.raises(TimestampRequestInvalid):
        parse_request(data)


def test_a_mutated_time_stamp_request_is_read_or_refused():
    good = (
        TimestampRequestBuilder().hash_algorithm(HashAlgorithm.SHA256).data(b"m").nonce(nonce=True).build().as_bytes()
    )
    for place in range(len(good)):
        for bit in range(8):
            mutated = bytearray(good)
            mutated[place] ^= 1 << bit
            with contextlib.suppress(TimestampRequestInvalid):
                assert len(parse_request(bytes(mutated)).imprint) == 32


@given(st.binary())
def test_any_bytes_are_no_csr(data):
    with pytest.raises((CsrInvalid, CsrProofInvalid)):
        prove_key(data)
