"""Each check of verification by itself: bundles, certificates, roots and statements with one fault, and without it."""

import base64
import copy
import hashlib
import json
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from umec_core import dsse
from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_core.note import sign_checkpoint
from umec_core.tree import Tree
from umec_images.authority.certificate import ProvenKey, SigningIdentity
from umec_images.authority.material import load_or_create
from umec_images.authority.timestamp import parse_request, respond
from umec_images.authority.trust import trusted_root
from umec_images.errors import DigestMismatch, SignatureInvalid, StatementInvalid, TrustedRootInvalid
from umec_images.statements import PROVENANCE, SUMMARY, parse_statement, parse_summary
from umec_images.statements.intoto import MAX_STATEMENT
from umec_images.verify import BundleVerifier, Identity, TrustRoot, load_key
from umec_images.verify.bundle import MAX_BUNDLE
from umec_images.verify.identity import ISSUER_V1, ISSUER_V2, parse_utf8_string, signer_of
from umec_images.verify.trust import MAX_ROOT

ISSUER = "https://mgmt.test:8443"
BUILDER = Identity(f"{ISSUER}/identity/v1/clients/builder", ISSUER)
DIGEST = f"sha256:{hashlib.sha256(b'some bytes').hexdigest()}"


@pytest.fixture(scope="module")
def statement(sigstore):
    return sigstore.statement(DIGEST)


@pytest.fixture(scope="module")
def artifact(sigstore):
    return sigstore.artifact(b"some bytes")


def check(verifier, bundle, digest=DIGEST, now=None):
    raw = bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode()
    return verifier.verify(raw, digest=digest, identity=BUILDER, now=now or system_clock())


def text(value):
    return base64.b64encode(value).decode()


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_a_bundle_is_bounded(verifier, statement):
    whole = statement + b" " * (MAX_BUNDLE - len(statement))
    assert check(verifier, whole)
    with pytest.raises(SignatureInvalid, match="at most"):
        check(verifier, whole + b" ")


@pytest.mark.parametrize("digits", ["G" * 64, "A" * 64, "0" * 63, "0" * 65, ""])
def test_a_digest_is_lower_case_and_whole(verifier, statement, digits):
    with pytest.raises(DigestMismatch):
        check(verifier, statement, digest=f"sha256:{digits}")
    assert check(verifier, statement)


def test_each_kind_of_bundle_says_what_it_is_not(verifier, statement, artifact):
    asked = {"digest": DIGEST, "identity": BUILDER, "now": system_clock()}
    with pytest.raises(SignatureInvalid, match="no DSSE envelope with exactly one signature"):
        verifier.verify_statement(artifact, **asked)
    with pytest.raises(SignatureInvalid, match="no signature of an artifact"):
        verifier.verify_artifact(statement, **asked)
    twice = json.loads(statement)
    twice["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(SignatureInvalid, match="exactly one signature"):
        verifier.verify_statement(json.dumps(twice).encode(), **asked)


def test_a_time_stamp_is_over_this_signature_and_there_are_few(sigstore, verifier, statement):
    stamps = ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")

    def with_stamps(change):
        bundle = json.loads(statement)
        place = bundle[stamps[0]][stamps[1]]
        place[stamps[2]] = change(place[stamps[2]])
        return bundle

    another = json.loads(sigstore.statement(DIGEST))[stamps[0]][stamps[1]][stamps[2]]
    with pytest.raises(SignatureInvalid, match="no trusted authority says when"):
        check(verifier, with_stamps(lambda _: another))
    with pytest.raises(SignatureInvalid, match="at most 8"):
        check(verifier, with_stamps(lambda own: own * 9))
    assert check(verifier, with_stamps(lambda own: own * 8))


def test_a_signature_is_not_ahead_of_us(verifier, statement, artifact):
    for bundle in (statement, artifact):
        signed_at = check(verifier, bundle).signed_at
        with pytest.raises(SignatureInvalid, match="in the future"):
            check(verifier, bundle, now=signed_at - timedelta(seconds=61))
        assert check(verifier, bundle, now=signed_at - timedelta(seconds=60))


# --- entries of the kind intoto --------------------------------------------------------------------------------------


class Archive:
    """A log of the first Rekor, made here: it holds entries of the kind `intoto` about real bundles."""

    def __init__(self, sigstore):
        self.key = ec.generate_private_key(ec.SECP256R1())
        raw = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        root = json.loads(sigstore.root)
        root["tlogs"][0]["publicKey"]["rawBytes"] = text(raw)
        self.log_id = text(hashlib.sha256(raw).digest())
        self.root = root
        self.verifier = BundleVerifier(json.dumps(root).encode())

    def bundle(self, statement, *, entries=1, **changes):
        bundle = json.loads(statement)
        envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
        der = base64.b64decode(material["certificate"]["rawBytes"])
        pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        payload = base64.b64decode(envelope["payload"])
        said = {
            "type": envelope["payloadType"],
            "signature": text(envelope["signatures"][0]["sig"].encode()),
            "key": text(pem),
            "hash": hashlib.sha256(payload).hexdigest(),
            "algorithm": "sha256",
            "kind": "intoto",
            "version": "0.0.2",
            **changes,
        }
        content = {
            "envelope": {
                "payloadType": said["type"],
                "signatures": [{"sig": said["signature"], "publicKey": said["key"]}],
            },
            "payloadHash": {"algorithm": said["algorithm"], "value": said["hash"]},
        }
        body = {"apiVersion": said["version"], "kind": said["kind"], "spec": {"content": content}}
        material["tlogEntries"] = [self.entry(json.dumps(body, sort_keys=True).encode())] * entries
        return bundle

    def entry(self, canonical):
        tree = Tree()
        tree.append(canonical)
        return {
            "logIndex": "0",
            "logId": {"keyId": self.log_id},
            "kindVersion": {"kind": "intoto", "version": "0.0.2"},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": text(tree.root()),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": sign_checkpoint("log.test", 1, tree.root(), self.key)},
            },
            "canonicalizedBody": text(canonical),
        }


@pytest.fixture(scope="module")
def archive(sigstore):
    return Archive(sigstore)


def test_an_entry_of_the_first_rekor_is_read(archive, statement):
    assert check(archive.verifier, archive.bundle(statement)).signer.subject == BUILDER.subject


def test_an_entry_of_the_first_rekor_is_about_this_envelope_and_no_other(archive, sigstore, statement):
    other = json.loads(sigstore.statement(DIGEST))
    certificate = x509.load_der_x509_certificate(
        base64.b64decode(other["verificationMaterial"]["certificate"]["rawBytes"])
    )
    changes = (
        {"type": "text/plain"},
        {"signature": text(other["dsseEnvelope"]["signatures"][0]["sig"].encode())},
        {"key": text(certificate.public_bytes(Encoding.PEM))},
        {"hash": "0" * 64},
        {"algorithm": "sha512"},
        {"kind": "dsse"},
        {"version": "0.0.1"},
    )
    for change in changes:
        with pytest.raises(SignatureInvalid, match="not about this envelope"):
            check(archive.verifier, archive.bundle(statement, **change))
    with pytest.raises(SignatureInvalid):
        check(archive.verifier, archive.bundle(statement, entries=2))


def test_what_the_first_rekor_logged_is_signed_by_a_certificate_that_holds(archive, verifier, statement):
    forged = archive.bundle(statement)
    payload = base64.b64decode(forged["dsseEnvelope"]["payload"]) + b" "
    forged["dsseEnvelope"]["payload"] = text(payload)
    logged = archive.bundle(json.dumps(forged).encode())
    with pytest.raises(SignatureInvalid, match="not made by the certificate's key"):
        check(archive.verifier, logged)
    with pytest.raises(SignatureInvalid):
        check(verifier, archive.bundle(statement))  # a log that this root does not know
    root = copy.deepcopy(archive.root)
    foreign = _authority(ec.generate_private_key(ec.SECP256R1()))
    root["certificateAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"] = text(foreign)
    with pytest.raises(SignatureInvalid):
        check(BundleVerifier(json.dumps(root).encode()), archive.bundle(statement))


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
def test_what_the_first_rekor_logged_is_signed_with_p256(archive, tmp_path, kind):
    now = system_clock()
    material = load_or_create(tmp_path, now=now)
    key = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    how = (padding.PKCS1v15(), hashes.SHA256()) if kind == "rsa" else (ec.ECDSA(hashes.SHA256()),)
    payload, subject = json.dumps(STATEMENT).encode(), SigningIdentity(BUILDER.subject, ISSUER)
    signature = key.sign(dsse.pre_authentication_encoding(dsse.IN_TOTO, payload), *how)
    certificate = material.issuer.issue(ProvenKey(key.public_key()), subject, now=now)
    asked = TimestampRequestBuilder(data=signature, hash_algorithm=HashAlgorithm.SHA256).build().as_bytes()
    stamp = respond(parse_request(asked), key=material.tsa_key, certificate=material.tsa_certificate, now=now)
    envelope = {"payload": text(payload), "payloadType": dsse.IN_TOTO, "signatures": [{"sig": text(signature)}]}
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "certificate": {"rawBytes": text(certificate.public_bytes(Encoding.DER))},
            "tlogEntries": [],
            "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": text(stamp)}]},
        },
        "dsseEnvelope": envelope,
    }
    root = trusted_root(material, url="https://registry.test") | {"tlogs": archive.root["tlogs"]}
    logged = archive.bundle(json.dumps(bundle).encode())
    checked = BundleVerifier(json.dumps(root).encode())
    if kind == "p256":
        assert check(checked, logged, digest=f"sha256:{HEX}").signer.subject == BUILDER.subject
    else:
        with pytest.raises(SignatureInvalid, match="not P-256"):
            check(checked, logged, digest=f"sha256:{HEX}")


def _authority(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    now = system_clock()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    return builder.add_extension(constraints, critical=True).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


# --- certificates ----------------------------------------------------------------------------------------------------


def utf8(value):
    return b"\x0c" + bytes([len(value)]) + value


def certificate(names, *, v1=ISSUER, v2=None):
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), system_clock()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for oid, value in ((ISSUER_V1, v1 and v1.encode()), (ISSUER_V2, v2 and utf8(v2.encode()))):
        if value:
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(key, hashes.SHA256())


URI, MAIL = x509.UniformResourceIdentifier("urn:builder"), x509.RFC822Name("builder@mgmt.test")


@pytest.mark.parametrize(
    ("names", "issuers"),
    [
        (None, {}),
        ([URI, MAIL], {}),
        ([URI, URI], {}),
        ([x509.DNSName("mgmt.test")], {}),
        ([x509.UniformResourceIdentifier("")], {}),
        ([URI], {"v1": None}),
        ([URI], {"v2": "https://elsewhere.test"}),
    ],
)
def test_a_certificate_names_one_subject_and_one_issuer(names, issuers):
    with pytest.raises(SignatureInvalid):
        signer_of(certificate(names, **issuers))
    for name in (URI, MAIL):
        found = signer_of(certificate([name], v2=ISSUER))
        assert (found.subject, found.issuer) == (name.value, ISSUER)


def test_the_issuer_of_a_certificate_is_bounded():
    assert parse_utf8_string(b"\x0c\x81\xff" + b"a" * 255) == "a" * 255
    for size in (256, 256 + 130):
        with pytest.raises(ValueError, match="UTF8String"):
            parse_utf8_string(b"\x0c\x81" + bytes([size % 256]) + b"a" * size)


def test_a_managed_key_is_p256():
    def pem(key):
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    assert load_key(pem(ec.generate_private_key(ec.SECP256R1())))
    for key in (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(SignatureInvalid):
            load_key(pem(key))


# --- trusted roots ---------------------------------------------------------------------------------------------------


def test_a_trusted_root_is_bounded(sigstore):
    whole = sigstore.root + b" " * (MAX_ROOT - len(sigstore.root))
    assert TrustRoot(whole).digest
    with pytest.raises(TrustedRootInvalid):
        TrustRoot(whole + b" ")


def test_a_trusted_root_is_of_a_kind_that_is_read_and_its_clock_has_a_chain(sigstore):
    root = json.loads(sigstore.root)
    for change in ({"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.9"}, {"mediaType": ""}):
        with pytest.raises(TrustedRootInvalid):
            TrustRoot(json.dumps(root | change).encode())
    root["timestampAuthorities"][0]["certChain"]["certificates"].pop()
    with pytest.raises(TrustedRootInvalid, match="signing certificate and its root"):
        TrustRoot(json.dumps(root).encode())


def test_without_a_time_nothing_is_trusted(sigstore):
    root = TrustRoot(sigstore.root)
    for ask in (root.verifier, root.logs):
        with pytest.raises(SignatureInvalid):
            ask([])
        assert ask([system_clock()])


# --- statements ------------------------------------------------------------------------------------------------------

HEX = "ab" * 32
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "harbour/crane", "digest": {"sha256": HEX}}],
    "predicateType": PROVENANCE,
    "predicate": {},
}


def test_a_statement_is_bounded():
    raw = json.dumps(STATEMENT).encode()
    whole = raw + b" " * (MAX_STATEMENT - len(raw))
    assert parse_statement(whole).subjects
    with pytest.raises(StatementInvalid):
        parse_statement(whole + b" ")


@pytest.mark.parametrize(
    "change",
    [
        {"subject": 5},
        {"subject": None},
        {"subject": {"name": "n"}},
        {"predicateType": 5},
        {"predicateType": ["x"]},
        {"subject": [{"name": "n", "digest": ["sha256"]}]},
        {"subject": [{"name": "n", "digest": {"sha512": ""}}]},
        {"subject": [{"name": "n", "digest": {"sha256": HEX, "sha512": 5}}]},
    ],
)
def test_every_member_of_a_statement_has_its_type(change):
    with pytest.raises(StatementInvalid):
        parse_statement(json.dumps({**STATEMENT, **change}).encode())


def test_every_member_of_a_statement_occurs_once_and_is_json():
    plain = json.dumps(STATEMENT)
    assert parse_statement(plain.encode())
    for broken in (
        plain.replace('"predicate":', f'"predicateType": "{PROVENANCE}", "predicate":'),
        plain[:-3] + '{"x": NaN}}',
    ):
        assert broken != plain
        with pytest.raises(StatementInvalid):
            parse_statement(broken.encode())


def test_a_summary_names_a_repository_and_a_sha256():
    for subject in ({"name": "n", "digest": {"sha512": HEX}}, {"name": "", "digest": {"sha256": HEX}}):
        statement = parse_statement(json.dumps({**STATEMENT, "subject": [subject], "predicateType": SUMMARY}).encode())
        with pytest.raises(StatementInvalid, match="exactly one repository"):
            parse_summary(statement)


# --- admission and promotion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"repository": "crane"}, {"digest": "sha256:0"}])
def test_only_a_repository_and_a_digest_are_admitted_or_promoted(site, signed, change):
    for work in (site.admit, lambda **wanted: site.promote(wanted.pop("digest"), "staging", **wanted)):
        with pytest.raises(UmecError) as caught:
            work(**{"digest": signed, "repository": "harbour/crane"} | change)
        assert caught.value.code == "reference-invalid"
    assert site.promote(signed, "staging")
