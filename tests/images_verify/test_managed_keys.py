"""Signatures by a managed key, in a log made here, time-stamped by the private authority."""

import base64
import hashlib
import json

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from umec_core import dsse
from umec_core.clock import system_clock
from umec_core.note import sign_checkpoint
from umec_core.tree import Tree
from umec_images.errors import DigestMismatch, SignatureInvalid, StatementInvalid
from umec_images.promotion.evidence import Attachment, verify_attachment
from umec_images.statements import Statement, Subject, encode_statement
from umec_images.verify import BundleVerifier

CONTENT = b"some bytes"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
PAYLOAD = encode_statement(Statement((Subject("n", {"sha256": DIGEST.removeprefix("sha256:")}),), "urn:p", {}))


def text(value):
    return base64.b64encode(value).decode()


def spki(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Owner:
    """Somebody with a key, a log that takes anything, and a time stamp for each signature."""

    def __init__(self, sigstore, curve=ec.SECP256R1):
        self.sigstore = sigstore
        self.key, self.log = ec.generate_private_key(curve()), ec.generate_private_key(ec.SECP256R1())
        root = json.loads(sigstore.root)
        root["tlogs"][0]["publicKey"]["rawBytes"] = text(spki(self.log))
        self.verifier = BundleVerifier(json.dumps(root).encode())

    def check(self, bundle, *, key=None, digest=DIGEST):
        identity = (key or self.key).public_key()
        return self.verifier.verify(json.dumps(bundle).encode(), digest=digest, identity=identity, now=system_clock())

    def artifact(self, **log):
        signature = self.key.sign(CONTENT, ec.ECDSA(SHA256()))
        digest = hashlib.sha256(CONTENT).digest()
        signed = {"messageDigest": {"algorithm": "SHA2_256", "digest": text(digest)}, "signature": text(signature)}
        return self._bundle({"messageSignature": signed}, digest, signature, **log)

    def envelope(self, payload=PAYLOAD, payload_type=dsse.IN_TOTO, **log):
        envelope = json.loads(dsse.sign(payload, payload_type, self.key))
        digest = hashlib.sha256(dsse.pre_authentication_encoding(payload_type, payload)).digest()
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        return self._bundle({"dsseEnvelope": envelope}, digest, signature, **log)

    def old_artifact(self, algorithm="sha256"):
        """Sign bytes, logged as the first Rekor did."""
        signature, digest = self.key.sign(CONTENT, ec.ECDSA(SHA256())), hashlib.sha256(CONTENT).digest()
        pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        spec = {
            "data": {"hash": {"algorithm": algorithm, "value": digest.hex()}},
            "signature": {"content": text(signature), "publicKey": {"content": text(pem)}},
        }
        signed = {"messageDigest": {"algorithm": "SHA2_256", "digest": text(digest)}, "signature": text(signature)}
        body = {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec}
        return self._logged({"messageSignature": signed}, signature, body, "hashedrekord", "0.0.1")

    def _bundle(
        self,
        signed,
        digest,
        signature,
        *,
        logged_key=None,
        logged_digest=None,
        kind="hashedrekord",
        algorithm="SHA2_256",
        said=None,
    ):
        verifier = {
            "publicKey": {"rawBytes": text(spki(logged_key or self.key))},
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
        }
        spec = {
            "data": {"algorithm": algorithm, "digest": text(logged_digest or digest)},
            "signature": {"content": text(signature), "verifier": verifier},
        }
        body = {"apiVersion": "0.0.2", "kind": kind, "spec": {"hashedRekordV002": spec}, **(said or {})}
        return self._logged(signed, signature, body, kind, "0.0.2")

    def _logged(self, signed, signature, body, kind, version):
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        tree = Tree()
        for entry in (b"before", canonical, b"after"):
            tree.append(entry)
        entry = {
            "logIndex": "1",
            "logId": {"keyId": text(hashlib.sha256(spki(self.log)).digest())},
            "kindVersion": {"kind": kind, "version": version},
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": text(tree.root()),
                "treeSize": "3",
                "hashes": [text(node) for node in tree.inclusion(1)],
                "checkpoint": {"envelope": sign_checkpoint("log.test", 3, tree.root(), self.log)},
            },
            "canonicalizedBody": text(canonical),
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "publicKey": {"hint": "a hint"},
                "tlogEntries": [entry],
                "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": self._stamp(signature)}]},
            },
            **signed,
        }

    def _stamp(self, signature):
        wanted = TimestampRequestBuilder(data=signature, hash_algorithm=HashAlgorithm.SHA256).build().as_bytes()
        headers = {"Content-Type": "application/timestamp-query"}
        answer = httpx.post(f"{self.sigstore.url}/sigstore/tsa/api/v1/timestamp", content=wanted, headers=headers)
        answer.raise_for_status()
        return text(answer.content)


@pytest.fixture(scope="module")
def owner(sigstore):
    return Owner(sigstore)


def test_an_artifact_and_a_statement_by_the_expected_key(owner):
    assert owner.check(owner.artifact()).digest == DIGEST
    assert owner.check(owner.envelope()).statement.predicate_type == "urn:p"


@pytest.mark.parametrize("make", [Owner.artifact, Owner.envelope], ids=["artifact", "envelope"])
def test_another_key_is_refused(owner, make):
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(SignatureInvalid, match="expected key"):
        owner.check(make(owner), key=other)
    for logged in ({"logged_key": other}, {"logged_digest": b"0" * 32}):
        with pytest.raises(SignatureInvalid, match="not about this signature"):
            owner.check(make(owner, **logged))
    with pytest.raises(SignatureInvalid, match="not read"):
        owner.check(make(owner, kind="something"))
    assert owner.check(make(owner))


def test_another_digest_and_another_type_are_refused(owner):
    other = f"sha256:{'0' * 64}"
    with pytest.raises(SignatureInvalid):
        owner.check(owner.artifact(), digest=other)
    with pytest.raises(DigestMismatch):
        owner.check(owner.envelope(), digest=other)
    with pytest.raises(StatementInvalid):
        owner.check(owner.envelope(payload_type="application/json"))


def change(bundle, *path, value):
    at = bundle
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return bundle


def test_log_and_time_count_as_ever(owner):
    entry = ("verificationMaterial", "tlogEntries", 0)
    proof = (*entry, "inclusionProof")
    foreign = sign_checkpoint("log.test", 3, bytes(32), owner.log)
    for path, value in (
        ((*entry, "canonicalizedBody"), text(b"{}")),
        ((*proof, "hashes"), []),
        ((*proof, "rootHash"), text(bytes(32))),
        ((*proof, "checkpoint", "envelope"), foreign),
        ((*proof, "checkpoint", "envelope"), sign_checkpoint("log.test", 3, bytes(32), owner.key)),
        (("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps"), []),
        (("verificationMaterial", "tlogEntries"), []),
        (("verificationMaterial", "timestampVerificationData"), {"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]}),
    ):
        with pytest.raises(SignatureInvalid):
            owner.check(change(owner.artifact(), *path, value=value))
    assert owner.check(owner.artifact())


def test_a_signature_in_another_log_is_refused(owner, sigstore):
    bundle = json.dumps(owner.artifact()).encode()
    with pytest.raises(SignatureInvalid):
        BundleVerifier(sigstore.root).verify(bundle, digest=DIGEST, identity=owner.key.public_key(), now=system_clock())


def test_an_entry_says_of_what_kind_it_is_and_how_it_was_hashed(owner):
    for said in ({"kind": "dsse"}, {"apiVersion": "0.0.9"}):
        with pytest.raises(SignatureInvalid, match="of another kind than it says"):
            owner.check(owner.artifact(said=said))
    for faulty in (owner.artifact(algorithm="SHA2_512"), owner.old_artifact(algorithm="sha512")):
        with pytest.raises(SignatureInvalid, match="another hash algorithm"):
            owner.check(faulty)
    assert owner.check(owner.artifact())
    assert owner.check(owner.old_artifact())


def test_a_bundle_by_a_key_is_one_by_a_key_with_one_entry_about_one_digest(owner, sigstore):
    for make in (owner.artifact, owner.envelope):
        certified = make()
        chain = json.loads(sigstore.root)["certificateAuthorities"][0]["certChain"]["certificates"]
        del certified["verificationMaterial"]["publicKey"]
        certified["verificationMaterial"]["certificate"] = chain[0]
        with pytest.raises(SignatureInvalid, match="signed with a certificate"):
            owner.check(certified)
        twice = make()
        twice["verificationMaterial"]["tlogEntries"] *= 2
        with pytest.raises(SignatureInvalid, match="exactly one log entry"):
            owner.check(twice)
        assert owner.check(make())
    again = owner.envelope()
    again["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(SignatureInvalid, match="exactly one signature"):
        owner.check(again)
    said = change(owner.artifact(), "messageSignature", "messageDigest", "digest", value=text(bytes(32)))
    with pytest.raises(SignatureInvalid, match="about another digest"):
        owner.check(said)


def test_a_managed_key_on_another_curve_signs_nothing(sigstore):
    large = Owner(sigstore, ec.SECP384R1)
    with pytest.raises(SignatureInvalid, match="P-256"):
        large.check(large.artifact())


def test_a_managed_key_is_no_identity_of_a_builder(owner):
    bundle, now = Attachment(json.dumps(owner.envelope()).encode(), "00"), system_clock()
    key = owner.key.public_key()
    assert owner.verifier.verify_statement(bundle.content, digest=DIGEST, identity=key, now=now).signer is None
    with pytest.raises(SignatureInvalid, match="no identity of a builder"):
        verify_attachment(bundle, DIGEST, owner.verifier, key, now)
