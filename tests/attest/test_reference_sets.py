"""Reference sets: what is refused, and why."""

import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umec_attest.errors import ReferenceRefused
from umec_attest.reference import PREDICATE_TYPE, parse_draft, render_draft, sign_reference_set, verify_reference_set
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core import dsse


@pytest.fixture
def key(kit):
    return kit.reference_key()


@pytest.fixture
def verify(kit, key):
    def run(envelope, **changes):
        arguments = {"signers": [key.public_key()], "now": kit.NOW, "minimum_version": 0} | changes
        return verify_reference_set(envelope, **arguments)

    return run


def statement(**predicate):
    members = {
        "version": 3,
        "issued": "2034-11-22T12:00:00Z",
        "expires": "2034-12-22T12:00:00Z",
        "pcrs": {"sha256": {"4": ["ab" * 32]}},
        "ignored": {"1": "boot order is the site's own"},
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "edge", "digest": {"sha256": "cd" * 32}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": members | predicate,
    }


def envelope(value, key):
    return dsse.sign(json.dumps(value).encode(), dsse.IN_TOTO, key)


def test_a_good_one(key, verify):
    reference = verify(envelope(statement(), key))
    assert (reference.name, reference.version) == ("edge", 3)
    assert reference.pcrs == {HashAlgorithm.SHA256: {4: frozenset({bytes.fromhex("ab" * 32)})}}
    assert reference.ignored == {1: "boot order is the site's own"}


def test_signed_by_another_or_by_nobody(key, verify, refused):
    other = ec.generate_private_key(ec.SECP256R1())
    good = envelope(statement(), key)
    for wrong in (envelope(statement(), other), good[:-1], b"", b"[]", json.dumps(statement()).encode()):
        with refused("reference-signature"):
            verify(wrong)
    with refused("reference-signature"):
        verify(good, signers=[])
    with refused("reference-signature"):
        verify(dsse.sign(json.dumps(statement()).encode(), "text/plain", key))


@pytest.mark.parametrize(
    ("predicate", "code"),
    [
        ({"pcrs": {}}, "reference-empty"),
        ({"pcrs": {"sha256": {}}}, "reference-empty"),
        ({"pcrs": {"sha256": {"4": []}}}, "reference-empty"),
        ({"pcrs": {"sha1": {"4": ["ab" * 20]}}}, "reference-invalid"),
        ({"pcrs": {"sha256": {"16": ["ab" * 32]}}}, "reference-invalid"),
        ({"pcrs": {"sha256": {"23": ["ab" * 32]}}}, "reference-invalid"),
        ({"pcrs": {"sha256": {"24": ["ab" * 32]}}}, "reference-invalid"),
        ({"pcrs": {"sha256": {"04": ["ab" * 32]}}}, "reference-invalid"),
        ({"pcrs": {"sha256": {"4": ["ab" * 31]}}}, "reference-invalid"),
        ({"pcrs": {"sha256": {"4": ["AB" * 32]}}}, "reference-invalid"),
        ({"pcrs": {"sha256": {"4": "ab" * 32}}}, "reference-invalid"),
        ({"ignored": {"4": "both"}}, "reference-invalid"),
        ({"ignored": {"1": ""}}, "reference-invalid"),
        ({"version": 0}, "reference-invalid"),
        ({"version": "3"}, "reference-invalid"),
        ({"unknown": 1}, "reference-invalid"),
        ({"issued": "2034-11-22T12:00:00"}, "reference-invalid"),
        ({"expires": "2034-11-22T12:00:00Z"}, "reference-invalid"),
        ({"issued": "2034-11-23T12:00:00Z"}, "reference-not-yet-valid"),
        ({"issued": "2034-10-22T12:00:00Z", "expires": "2034-11-22T12:00:00Z"}, "reference-expired"),
    ],
)
def test_one_fault_in_the_predicate(key, verify, refused, predicate, code):
    with refused(code):
        verify(envelope(statement(**predicate), key))


def test_one_fault_in_the_statement(key, verify, refused):
    for change in (
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "urn:umec:reference-set:v2"},
        {"subject": []},
        {"subject": statement()["subject"] * 2},
        {"subject": [{"name": "Edge!", "digest": {"sha256": "cd" * 32}}]},
        {"more": 1},
    ):
        with refused("reference-invalid"):
            verify(envelope(statement() | change, key))


def test_a_repeated_member(key, verify, refused):
    text = json.dumps(statement()).replace('"version": 3', '"version": 3, "version": 9')
    with refused("reference-invalid"):
        verify(dsse.sign(text.encode(), dsse.IN_TOTO, key))


def test_rollback_and_expiry_by_time(kit, key, verify, refused):
    good = envelope(statement(), key)
    with refused("reference-rollback"):
        verify(good, minimum_version=4)
    verify(good, minimum_version=3)
    with refused("reference-expired"):
        verify(good, now=kit.NOW + timedelta(days=30))
    verify(good, now=kit.NOW + timedelta(days=30, seconds=-1))
    with refused("reference-not-yet-valid"):
        verify(good, now=kit.NOW - timedelta(minutes=2))


def test_what_would_be_refused_is_not_signed(kit, key, refused):
    arguments = {
        "name": "edge",
        "subject_sha256": "cd" * 32,
        "version": 1,
        "issued": kit.NOW,
        "expires": kit.NOW + timedelta(days=1),
        "pcrs": {kit.SHA256: {4: [bytes(32)]}},
        "ignored": {},
        "key": key,
    }
    sign_reference_set(**arguments)
    with refused("reference-empty"):
        sign_reference_set(**(arguments | {"pcrs": {}}))
    with refused("reference-invalid"):
        sign_reference_set(**(arguments | {"name": ""}))


def test_a_huge_envelope(verify, refused):
    with refused("reference-invalid"):
        verify(b" " * (16 * 1024 * 1024 + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["image_sha256", "pcrs", "ignored", "models", "runtime", "starts", "owner", "stages", "sha256", "0"]
MEMBERS = st.dictionaries(st.sampled_from(NAMES), JSON)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(value=JSON)
def test_any_signed_json_is_a_set_or_refused(kit, value):
    key = kit.reference_key()
    try:
        verify_reference_set(envelope(value, key), signers=[key.public_key()], now=kit.NOW, minimum_version=0)
    except ReferenceRefused:
        return
    pytest.fail("random JSON became a reference set")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(value=JSON | MEMBERS)
def test_any_json_is_a_draft_or_refused(value):
    for data in (json.dumps(value).encode(), json.dumps(value).encode()[:-1], b"\xff"):
        with pytest.raises(ReferenceRefused):
            parse_draft(data)


def test_a_draft_with_everything_in_it():
    models = {"lamp": {"pcrs": {"sha256": {"0": ["01" * 32]}}, "excused": {"crtm-version-invalid": "why"}}}
    draft = {
        "image_sha256": "ab" * 32,
        "pcrs": {"sha256": {"4": ["cd" * 32]}},
        "ignored": {"12": "credentials"},
        "models": models,
        "runtime": {"files": {"/usr/bin/true": ["ef" * 32]}},
    }
    parsed = parse_draft(json.dumps(draft).encode())
    assert (parsed.image_sha256, parsed.ignored) == ("ab" * 32, {12: "credentials"})
    values = {name: model.pcrs for name, model in parsed.models.items()}
    shown = render_draft(parsed.pcrs, values, parsed.image_sha256)
    assert shown == {
        "image_sha256": "ab" * 32,
        "pcrs": draft["pcrs"],
        "models": {"lamp": {"pcrs": models["lamp"]["pcrs"]}},
    }
    assert render_draft(parsed.pcrs, {}, None) == {"pcrs": draft["pcrs"]}
