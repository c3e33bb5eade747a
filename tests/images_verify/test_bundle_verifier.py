"""Bundles that the private authority really signed, and what may be wrong with them or with the trust in them."""

import base64
import hashlib
import json
from datetime import timedelta

import pytest
import sigstore.dsse
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_images.errors import (
    AuthorityExpired,
    DigestMismatch,
    IdentityRefused,
    SignatureInvalid,
    StatementInvalid,
    TrustedRootInvalid,
)
from umec_images.verify import AnyIdentity, BundleVerifier, Identity, IdentityPattern, load_key

ISSUER = "https://mgmt.test:8443"
BUILDER = Identity(f"{ISSUER}/identity/v1/clients/builder", ISSUER)
CONTENT = b"some bytes"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
OTHER = f"sha256:{hashlib.sha256(b'other bytes').hexdigest()}"


@pytest.fixture(scope="module")
def statement(sigstore):
    return sigstore.statement(DIGEST)


@pytest.fixture(scope="module")
def artifact(sigstore):
    return sigstore.artifact(CONTENT)


def check(verifier, bundle, *, digest=DIGEST, identity=BUILDER, now=None):
    return verifier.verify(bundle, digest=digest, identity=identity, now=now or system_clock())


def test_a_good_statement_and_a_good_artifact(verifier, statement, artifact):
    verified = check(verifier, statement)
    assert verified.statement.subjects[0].digests["sha256"] == DIGEST.removeprefix("sha256:")
    assert verified.signer.subject == BUILDER.subject
    assert abs(system_clock() - verified.signed_at) < timedelta(minutes=5)
    assert check(verifier, artifact).digest == DIGEST


def test_a_statement_about_another_digest_is_refused(verifier, statement):
    with pytest.raises(DigestMismatch) as refusal:
        check(verifier, statement, digest=OTHER)
    assert refusal.value.code == "digest-mismatch"


def test_an_artifact_with_another_digest_is_refused(verifier, artifact):
    with pytest.raises(SignatureInvalid) as refusal:
        check(verifier, artifact, digest=OTHER)
    assert refusal.value.code == "image-signature-invalid"


@pytest.mark.parametrize(
    "digest", ["", "sha256:", DIGEST.upper(), DIGEST[:-1], DIGEST.removeprefix("sha256:"), "sha512:00"]
)
def test_what_is_no_digest_is_refused(verifier, statement, digest):
    with pytest.raises(DigestMismatch):
        check(verifier, statement, digest=digest)


def test_each_kind_is_verified_as_what_it_is_asked_for(verifier, statement, artifact):
    for method, bundle in ((verifier.verify_artifact, statement), (verifier.verify_statement, artifact)):
        with pytest.raises(SignatureInvalid):
            method(bundle, digest=DIGEST, identity=BUILDER, now=system_clock())


@pytest.mark.parametrize(
    "identity",
    [
        Identity(f"{ISSUER}/identity/v1/clients/stranger", ISSUER),
        Identity(BUILDER.subject, "https://elsewhere.test"),
        IdentityPattern(r"https://mgmt\.test:8443/identity/v1/clients/build", ISSUER),
        IdentityPattern(r"identity/v1/clients/builder", ISSUER),
        IdentityPattern(r".*", "https://elsewhere.test"),
        AnyIdentity((Identity("urn:a", ISSUER), Identity("urn:b", ISSUER))),
    ],
    ids=["subject", "issuer", "prefix", "suffix", "pattern-of-another-issuer", "none-of-them"],
)
def test_a_foreign_identity_is_refused(verifier, statement, artifact, identity):
    for bundle in (statement, artifact):
        with pytest.raises(IdentityRefused) as refusal:
            check(verifier, bundle, identity=identity)
        assert refusal.value.code == "image-identity"
        check(verifier, bundle, identity=AnyIdentity((identity, BUILDER)))
    check(verifier, statement, identity=IdentityPattern(r"https://mgmt\.test:8443/identity/v1/clients/.*", ISSUER))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Identity("", ISSUER),
        lambda: Identity("urn:x", ""),
        lambda: IdentityPattern("", ISSUER),
        lambda: IdentityPattern(".*", ""),
        lambda: IdentityPattern("(", ISSUER),
        lambda: AnyIdentity(()),
    ],
)
def test_an_empty_expectation_is_no_expectation(make):
    with pytest.raises(IdentityRefused):
        make()


def test_another_payload_type_is_refused(verifier, sigstore, monkeypatch, statement):
    monkeypatch.setattr(sigstore_envelope(), "_TYPE", "application/x-something")
    bundle = sigstore.statement(DIGEST)
    with pytest.raises(StatementInvalid) as refusal:
        check(verifier, bundle)
    assert refusal.value.code == "statement-invalid"
    check(verifier, statement)


def sigstore_envelope():
    return sigstore.dsse.Envelope


def test_a_signature_from_the_future_is_refused(verifier, statement):
    now = system_clock()
    with pytest.raises(SignatureInvalid):
        check(verifier, statement, now=now - timedelta(hours=1))
    check(verifier, statement, now=now)


def test_a_bundle_of_another_instance_is_refused(sigstore, statement, verifier):
    root = json.loads(sigstore.root)
    spki = ec.generate_private_key(ec.SECP256R1()).public_key()
    raw = spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    root["tlogs"][0]["publicKey"]["rawBytes"] = base64.b64encode(raw).decode()
    with pytest.raises(SignatureInvalid):
        check(BundleVerifier(json.dumps(root).encode()), statement)
    check(verifier, statement)


PARTS = {
    "ca": lambda root: root["certificateAuthorities"][0],
    "tsa": lambda root: root["timestampAuthorities"][0],
    "log": lambda root: root["tlogs"][0]["publicKey"],
    "ct-log": lambda root: root["ctlogs"][0]["publicKey"],
}


@pytest.mark.parametrize("part", PARTS)
def test_a_key_or_authority_retired_before_the_signature_is_not_believed(sigstore, verifier, statement, artifact, part):
    for bundle in (statement, artifact):
        signed_at = check(verifier, bundle).signed_at

        def ending(end, bundle=bundle):
            root = json.loads(sigstore.root)
            PARTS[part](root)["validFor"]["end"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
            PARTS[part](root)["validFor"]["start"] = "2020-01-01T00:00:00Z"
            return check(BundleVerifier(json.dumps(root).encode()), bundle)

        with pytest.raises(AuthorityExpired) as refusal:
            ending(signed_at - timedelta(seconds=1))
        assert refusal.value.code == "image-authority-expired"
        assert ending(signed_at).bundle_id  # the interval is closed
        assert ending(signed_at + timedelta(days=1)).bundle_id


@pytest.mark.parametrize("part", PARTS)
def test_a_key_or_authority_trusted_only_after_the_signature_is_not_believed(sigstore, verifier, statement, part):
    signed_at = check(verifier, statement).signed_at
    root = json.loads(sigstore.root)
    PARTS[part](root)["validFor"]["start"] = (signed_at + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with pytest.raises(AuthorityExpired):
        check(BundleVerifier(json.dumps(root).encode()), statement, now=signed_at + timedelta(days=1))
    check(verifier, statement)


@pytest.mark.parametrize("part", PARTS)
def test_a_forgery_is_a_forgery_also_in_the_name_of_a_retired_authority(sigstore, verifier, statement, part):
    signed_at = check(verifier, statement).signed_at
    root = json.loads(sigstore.root)
    PARTS[part](root)["validFor"] = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}
    at = statement.index(b'"sig":"') + 20
    forged = statement[:at] + (b"A" if statement[at : at + 1] != b"A" else b"B") + statement[at + 1 :]
    with pytest.raises(SignatureInvalid) as refusal:
        check(BundleVerifier(json.dumps(root).encode()), forged, now=signed_at)
    assert refusal.value.code == "image-signature-invalid"


def test_what_was_signed_in_time_is_good_long_after_every_authority_has_ended(sigstore, statement, artifact):
    later = system_clock() + timedelta(days=20 * 365)
    root = json.loads(sigstore.root)
    for part in PARTS.values():
        part(root)["validFor"]["end"] = (system_clock() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    authority = base64.b64decode(root["certificateAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"])
    assert x509.load_der_x509_certificate(authority).not_valid_after_utc < later
    for bundle in (statement, artifact):
        assert check(BundleVerifier(json.dumps(root).encode()), bundle, now=later).signer.subject == BUILDER.subject


@pytest.mark.parametrize("part", PARTS)
def test_a_key_or_authority_that_nobody_could_retire_is_refused(sigstore, part):
    root = json.loads(sigstore.root)
    del PARTS[part](root)["validFor"]
    with pytest.raises(TrustedRootInvalid) as refusal:
        BundleVerifier(json.dumps(root).encode())
    assert refusal.value.code == "trusted-root-invalid"
    assert BundleVerifier(sigstore.root).root.digest == hashlib.sha256(sigstore.root).hexdigest()


@pytest.mark.parametrize("member", ["certificateAuthorities", "timestampAuthorities", "tlogs", "ctlogs"])
def test_a_root_without_one_of_its_parts_verifies_nothing(sigstore, statement, member):
    root = json.loads(sigstore.root)
    root[member] = []
    with pytest.raises((SignatureInvalid, TrustedRootInvalid)):
        check(BundleVerifier(json.dumps(root).encode()), statement)


@pytest.mark.parametrize("root", [b"", b"{}", b"[]", b"\xff", b'{"mediaType": "x"}'])
def test_malformed_roots_are_refused(root):
    with pytest.raises(TrustedRootInvalid):
        BundleVerifier(root)


def test_what_nobody_authenticates_does_not_change_the_name_of_a_bundle(verifier, statement):
    bundle = json.loads(statement)
    bundle["verificationMaterial"]["tlogEntries"][0]["logIndex"] = "424242"
    named = check(verifier, statement).bundle_id
    assert check(verifier, json.dumps(bundle).encode()).bundle_id == named


def test_two_signatures_have_two_names(verifier, sigstore, statement):
    assert check(verifier, sigstore.statement(DIGEST)).bundle_id != check(verifier, statement).bundle_id


MUTATIONS = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=0, max_size=3), st.integers(0, 3))


@settings(max_examples=150, deadline=None)
@given(mutation=MUTATIONS, kind=st.booleans())
def test_a_mutated_bundle_is_the_same_bundle_or_refused(verifier, statement, artifact, mutation, kind):
    place, inserted, removed = mutation
    bundle = statement if kind else artifact
    at = int(place * len(bundle))
    try:
        verified = check(verifier, bundle[:at] + inserted + bundle[at + removed :])
    except UmecError as refusal:
        assert refusal.code in {"image-signature-invalid", "statement-invalid", "digest-mismatch", "image-identity"}  # noqa: PT017
    else:
        assert verified.bundle_id == check(verifier, bundle).bundle_id


@pytest.mark.parametrize("raw", [b"", b"{}", b"[" * 100_000, b"\x00" * 64, b'{"mediaType": 1}'])
def test_what_is_no_bundle_is_refused(verifier, raw):
    with pytest.raises(SignatureInvalid):
        check(verifier, raw)


def test_a_bundle_with_a_certificate_is_not_accepted_for_a_key(verifier, statement, artifact):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    for bundle in (statement, artifact):
        with pytest.raises(SignatureInvalid):
            check(verifier, bundle, identity=key)


def test_only_p256_keys_are_loaded():
    def pem(curve):
        return ec.generate_private_key(curve).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    assert load_key(pem(ec.SECP256R1()))
    for broken in (b"", b"nothing", pem(ec.SECP384R1())):
        with pytest.raises(SignatureInvalid):
            load_key(broken)
