"""Each check of the signing authority by itself: what only this check refuses, and the same without the fault."""

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import update

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_core.keys import load_or_create_key
from umec_core.store import Store
from umec_images.authority import der
from umec_images.authority.certificate import MAX_CSR, ProvenKey, SigningIdentity, prove_key
from umec_images.authority.entry import MAX_ENTRY, LogEntry, parse_entry
from umec_images.authority.errors import TimestampRequestInvalid
from umec_images.authority.identity import IdentityVerifier
from umec_images.authority.log import SigstoreLog
from umec_images.authority.material import load_or_create
from umec_images.authority.rows import CheckpointRow, EntryRow
from umec_images.authority.service import MIGRATIONS
from umec_images.authority.timestamp import parse_request

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def code(work, *arguments, **named):
    with pytest.raises(UmecError) as caught:
        work(*arguments, **named)
    return caught.value.code


# --- requests for certificates ---------------------------------------------------------------------------------------


def csr(key):
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())


def test_a_request_for_a_certificate_is_bounded_and_about_p256():
    good = csr(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.PEM)
    assert code(prove_key, good + b"\n" * (MAX_CSR - len(good) + 1)) == "csr-invalid"
    assert prove_key(good + b"\n" * (MAX_CSR - len(good))).key
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        assert code(prove_key, csr(key).public_bytes(Encoding.PEM)) == "csr-invalid"


# --- DER -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x02\x01a", b"\x04", b"\x04\x02a", b"\x04\x80", b"\x04\x81\x01a"),
        *(b"\x04\x82\x00\x80" + b"a" * 128, b"\x04\xff" + b"a" * 200, b"\x04\x85\x01\x00\x00\x00\x00a"),
    ],
    ids=["nothing", "another-tag", "no-length", "cut", "indefinite", "long-for-short", "leading-zero", "ff", "huge"],
)
def test_a_value_that_is_not_der_is_refused(data):
    with pytest.raises(TimestampRequestInvalid):
        der.Reader(data).read(der.OCTET_STRING)
    assert der.Reader(b"\x04\x01a").read(der.OCTET_STRING) == b"a"
    assert der.Reader(b"\x04\x81\x80" + b"a" * 128).read(der.OCTET_STRING) == b"a" * 128


def test_bytes_that_nobody_read_are_refused():
    with pytest.raises(TimestampRequestInvalid):
        der.Reader(b"x").finish()
    der.Reader(b"").finish()


# --- time stamps -----------------------------------------------------------------------------------------------------

SHA256, SHA512, POLICY = "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.3", "1.3.6.1.4.1.57264.2"


def stamp_request(*rest, version=b"\x01", algorithm=SHA256, parameters=b"", imprint=bytes(32), more=b""):
    hashed = der.sequence(der.sequence(der.oid(algorithm), parameters), der.octets(imprint), more)
    return der.sequence(der.tlv(der.INTEGER, version), hashed, *rest)


@pytest.mark.parametrize(
    "request_",
    [
        stamp_request(version=b"\x02"),
        stamp_request(algorithm=SHA512),
        stamp_request(parameters=b"\x05\x00\x05\x00"),
        stamp_request(parameters=der.octets(b"x")),
        stamp_request(imprint=bytes(31)),
        stamp_request(imprint=bytes(33)),
        stamp_request(more=b"\x05\x00"),
        stamp_request(der.oid(SHA512)),
        stamp_request(der.tlv(der.INTEGER, b"")),
        stamp_request(der.tlv(der.INTEGER, b"\x01" * 33)),
        stamp_request(der.tlv(der.BOOLEAN, b"\x01")),
        stamp_request(der.tlv(der.BOOLEAN, b"")),
        stamp_request(b"\x05\x00"),
        stamp_request() + b"\x00",
    ],
)
def test_only_what_will_be_stamped_is_a_request(request_):
    assert code(parse_request, request_) == "timestamp-request-invalid"
    assert parse_request(stamp_request()).imprint == bytes(32)


def test_what_a_client_may_add_to_a_request_is_read():
    nonce = der.tlv(der.INTEGER, b"\x01" * 32)
    full = parse_request(stamp_request(der.oid(POLICY), nonce, der.tlv(der.BOOLEAN, b"\xff"), parameters=b"\x05\x00"))
    assert (full.nonce, full.certificates) == (b"\x01" * 32, True)
    bare = parse_request(stamp_request(der.tlv(der.BOOLEAN, b"\x00")))
    assert (bare.nonce, bare.certificates) == (None, False)


# --- log entries -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return load_or_create(tmp_path_factory.mktemp("material"), now=NOW)


def logged(material, key, signature):
    identity = SigningIdentity("https://mgmt.test/clients/builder", "https://mgmt.test")
    certificate = material.issuer.issue(ProvenKey(key.public_key()), identity, now=NOW)
    raw = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    verifier = {"x509Certificate": {"rawBytes": raw}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    digest = base64.b64encode(hashlib.sha256(b"content").digest()).decode()
    content = base64.b64encode(signature).decode()
    return {"hashedRekordRequestV002": {"digest": digest, "signature": {"content": content, "verifier": verifier}}}


@pytest.fixture(scope="module")
def rekord(material):
    key = ec.generate_private_key(ec.SECP256R1())
    return logged(material, key, key.sign(b"content", ec.ECDSA(hashes.SHA256())))


def test_an_entry_is_bounded(material, rekord):
    text = json.dumps(rekord).encode()
    whole = text + b" " * (MAX_ENTRY - len(text))
    assert parse_entry(whole, issuer=material.issuer, now=NOW).kind == "hashedrekord"
    assert code(parse_entry, whole + b" ", issuer=material.issuer, now=NOW) == "log-entry-invalid"


def test_an_entry_is_of_exactly_one_kind(material, rekord):
    envelope = {"payload": "YQ==", "payloadType": "t", "signatures": [{"sig": "YQ=="}]}
    verifiers = [rekord["hashedRekordRequestV002"]["signature"]["verifier"]]
    both = rekord | {"dsseRequestV002": {"envelope": envelope, "verifiers": verifiers}}
    for request in ({}, both):
        assert code(parse_entry, json.dumps(request).encode(), issuer=material.issuer, now=NOW) == "log-entry-invalid"


def test_a_certificate_of_ours_for_another_kind_of_key_is_not_logged(material):
    for key, signature in (
        (large := ec.generate_private_key(ec.SECP384R1()), large.sign(b"content", ec.ECDSA(hashes.SHA256()))),
        (rsa.generate_private_key(65537, 2048), b"x"),
    ):
        request = json.dumps(logged(material, key, signature)).encode()
        assert code(parse_entry, request, issuer=material.issuer, now=NOW) == "log-entry-invalid"


def rewritten(material, tmp_path, change):
    """Log three entries, have somebody change the database, and return why the log does not open any more."""

    async def story():
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'log.db'}", migrations=MIGRATIONS)
        try:
            log = await SigstoreLog.open(store, material.log_key, origin="log")
            for number in range(3):
                await log.append(LogEntry("k", "1", b"%d" % number), now=NOW)
            await SigstoreLog.open(store, material.log_key, origin="log")
            await store.write(lambda session: session.execute(change))
            with pytest.raises(UmecError) as caught:
                await SigstoreLog.open(store, material.log_key, origin="log")
            return caught.value.code
        finally:
            await store.close()

    return asyncio.run(story())


def test_a_log_whose_places_moved_does_not_open(material, tmp_path):
    moved = update(EntryRow).where(EntryRow.index == 2).values(index=7)
    assert rewritten(material, tmp_path, moved) == "log-rewritten"


def test_a_log_of_another_size_than_was_signed_does_not_open(material, tmp_path):
    assert rewritten(material, tmp_path, update(CheckpointRow).values(size=4)) == "log-rewritten"


# --- identities and keys ---------------------------------------------------------------------------------------------


def test_an_authority_believes_somebody(issuer):
    def made(url):
        return IdentityVerifier(issuer=url, keys=issuer.keys, clock=system_clock)

    assert code(made, "") == "identity-token-invalid"

    def ask(authorization):
        return asyncio.run(made(issuer.url).verify(authorization))

    assert ask(f"bearer {issuer.identity()}").issuer == issuer.url
    for missing in (None, "", "Bearer", "Bearer ", f"Basic {issuer.identity()}", issuer.identity()):
        assert code(ask, missing) == "identity-token-missing"
    assert code(ask, f"Bearer {issuer.identity(exp=True)}") == "identity-token-invalid"
    for subject in (5, None, "https://a b", "https://" + "a" * 501):
        assert code(ask, f"Bearer {issuer.identity(sub=subject)}") == "identity-token-subject"


def test_a_certificate_and_a_key_of_different_authorities_do_not_start(tmp_path):
    load_or_create(tmp_path, now=NOW)
    for name in ("ca.key", "tsa.key"):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        load_or_create_key(tmp_path / name)
        assert code(load_or_create, tmp_path, now=NOW) == "authority-material-invalid"
        (tmp_path / name).write_bytes(kept)
    assert load_or_create(tmp_path, now=NOW)
