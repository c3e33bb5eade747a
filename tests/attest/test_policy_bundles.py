"""Signed appraisal policies: what is refused, and why."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umec_attest.policy_bundle import check_successor, sign_policy_bundle, verify_policy_bundle
from umec_core import dsse
from umec_core.errors import UmecError
from umec_policies import PolicySet, load_default


@pytest.fixture(scope="module")
def policies():
    return load_default("appraisal")


@pytest.fixture
def key(kit):
    return kit.reference_key()


@pytest.fixture
def statement(policies, key):
    return json.loads(opened(sign_policy_bundle(policies, version=3, key=key), key))


def opened(envelope, key):
    return dsse.verify(envelope, keys=[key.public_key()], payload_type=dsse.IN_TOTO)


def signed(value, key, kind=dsse.IN_TOTO):
    return dsse.sign(json.dumps(value).encode(), kind, key)


def test_what_was_signed_is_what_is_judged_by(policies, key):
    bundle = verify_policy_bundle(sign_policy_bundle(policies, version=3, key=key), signers=[key.public_key()])
    assert (bundle.version, bundle.policies.digest) == (3, policies.digest)


def test_signed_by_another_or_by_nobody(policies, key, statement, refused):
    good, other = sign_policy_bundle(policies, version=3, key=key), ec.generate_private_key(ec.SECP256R1())
    for envelope in (signed(statement, other), good[:-1], b"", json.dumps(statement).encode()):
        with refused("policy-bundle-signature"):
            verify_policy_bundle(envelope, signers=[key.public_key()])
    with refused("policy-bundle-signature"):
        verify_policy_bundle(good, signers=[])
    with refused("policy-bundle-signature"):
        verify_policy_bundle(signed(statement, key, "text/plain"), signers=[key.public_key()])


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "urn:umec:reference-set:v1"},
        {"subject": []},
        {"subject": [{"name": "tokens", "digest": {"sha256": "ab" * 32}}]},
        {"subject": [{"name": "appraisal", "digest": {"sha256": "ab" * 32}}]},  # of other policies
        {"predicate": {}},
    ],
)
def test_one_fault_in_the_statement(key, statement, refused, change):
    with refused("policy-bundle-invalid"):
        verify_policy_bundle(signed(statement | change, key), signers=[key.public_key()])
    verify_policy_bundle(signed(statement, key), signers=[key.public_key()])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 0}, "policy-bundle-invalid"),
        ({"version": "3"}, "policy-bundle-invalid"),
        ({"unknown": 1}, "policy-bundle-invalid"),
        ({"policies": 1}, "policy-bundle-invalid"),
        ({"policies": '@id("all") permit (principal, action, resource);'}, "policy-bundle-invalid"),  # another digest
        ({"policies": ""}, "policy-invalid"),
        ({"policies": "permit"}, "policy-invalid"),
        (
            {"policies": '@id("x") permit (principal, action, resource) when { context.no_such_fact };'},
            "policy-invalid",
        ),
    ],
)
def test_one_fault_in_the_predicate(key, statement, refused, change, code):
    predicate = statement["predicate"] | change
    with refused(code):
        verify_policy_bundle(signed(statement | {"predicate": predicate}, key), signers=[key.public_key()])


def test_a_repeated_member(key, statement, refused):
    text = json.dumps(statement).replace('"version": 3', '"version": 3, "version": 9')
    with refused("policy-bundle-invalid"):
        verify_policy_bundle(dsse.sign(text.encode(), dsse.IN_TOTO, key), signers=[key.public_key()])


def test_what_would_be_refused_is_not_signed(policies, key, refused):
    with refused("policy-bundle-invalid"):
        sign_policy_bundle(policies, version=0, key=key)


def test_an_older_bundle_is_refused_and_so_is_another_of_the_same_version(policies, key, refused):
    bundle = verify_policy_bundle(sign_policy_bundle(policies, version=3, key=key), signers=[key.public_key()])
    check_successor(bundle, version=2, sha256="ab" * 32)
    check_successor(bundle, version=3, sha256=bundle.sha256)
    with refused("policy-bundle-rollback"):
        check_successor(bundle, version=4, sha256="ab" * 32)
    strict = PolicySet(
        policies.policies_text + '@id("none") forbid (principal, action, resource);', policies.schema_text
    )
    other = verify_policy_bundle(sign_policy_bundle(strict, version=3, key=key), signers=[key.public_key()])
    with refused("policy-bundle-rollback"):
        check_successor(other, version=3, sha256=bundle.sha256)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(value=JSON)
def test_any_signed_json_is_a_bundle_or_refused(kit, value):
    key = kit.reference_key()
    with pytest.raises(UmecError):
        verify_policy_bundle(signed(value, key), signers=[key.public_key()])
