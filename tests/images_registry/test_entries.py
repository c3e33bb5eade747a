"""What the log takes, without HTTP: both kinds of entry, and only certificates of its own, while they are valid."""

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from umec_core.errors import UmecError
from umec_core.note import verify_checkpoint
from umec_core.store import Store
from umec_core.tree import leaf_hash, verify_inclusion
from umec_images.authority.certificate import LIFETIME, ProvenKey, SigningIdentity
from umec_images.authority.entry import parse_entry
from umec_images.authority.errors import EntryInvalid
from umec_images.authority.log import SigstoreLog
from umec_images.authority.material import load_or_create
from umec_images.authority.service import MIGRATIONS

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
PAYLOAD, KIND = b'{"_type": "statement"}', "application/vnd.in-toto+json"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return load_or_create(tmp_path_factory.mktemp("material"), now=NOW)


@pytest.fixture(scope="module")
def dsse(material):
    key = ec.generate_private_key(ec.SECP256R1())
    identity = SigningIdentity("https://mgmt.test/clients/builder", "https://mgmt.test")
    certificate = material.issuer.issue(ProvenKey(key.public_key()), identity, now=NOW)
    pae = b"DSSEv1 %d %b %d %b" % (len(KIND), KIND.encode(), len(PAYLOAD), PAYLOAD)
    signature = base64.b64encode(key.sign(pae, ec.ECDSA(hashes.SHA256()))).decode()
    raw = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    verifier = {"x509Certificate": {"rawBytes": raw}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    envelope = {
        "payload": base64.b64encode(PAYLOAD).decode(),
        "payloadType": KIND,
        "signatures": [{"sig": signature, "keyid": ""}],
    }
    return {"dsseRequestV002": {"envelope": envelope, "verifiers": [verifier]}}


def entry(material, request, now=NOW):
    return parse_entry(json.dumps(request).encode(), issuer=material.issuer, now=now)


def code(*arguments, **named):
    with pytest.raises(UmecError) as caught:
        entry(*arguments, **named)
    return caught.value.code


def changed(request, **envelope):
    copy = json.loads(json.dumps(request))
    copy["dsseRequestV002"]["envelope"] |= envelope
    return copy


def test_a_changed_envelope_is_not_logged(material, dsse):
    assert code(material, changed(dsse, payloadType="text/plain")) == "log-entry-signature"
    assert code(material, changed(dsse, payload=base64.b64encode(b"other").decode())) == "log-entry-signature"
    assert code(material, changed(dsse, payload="not base64!")) == "log-entry-invalid"
    assert code(material, changed(dsse, signatures=[])) == "log-entry-invalid"
    assert entry(material, dsse).kind == "dsse"


def test_a_certificate_that_is_over_signs_nothing_more(material, dsse):
    late = NOW + LIFETIME + timedelta(seconds=1)
    assert code(material, dsse, now=late) == "log-entry-certificate-expired"
    assert code(material, dsse, now=NOW - timedelta(seconds=1)) == "log-entry-certificate-expired"
    assert entry(material, dsse, now=NOW + LIFETIME).kind == "dsse"


def test_a_certificate_of_another_authority_is_foreign(dsse, tmp_path):
    other = load_or_create(tmp_path, now=NOW)
    assert code(other, dsse) == "log-entry-certificate-foreign"


def test_its_place_is_proved(material, dsse, tmp_path):
    async def logged():
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'log.db'}", migrations=MIGRATIONS)
        try:
            log = await SigstoreLog.open(store, material.log_key, origin="edge.test/log")
            return await log.append(entry(material, dsse), now=NOW)
        finally:
            await store.close()

    made = asyncio.run(logged())
    body, proof = base64.b64decode(made["canonicalizedBody"]), made["inclusionProof"]
    spec = json.loads(body)["spec"]["dsseV002"]
    assert base64.b64decode(spec["payloadHash"]["digest"]) == hashlib.sha256(PAYLOAD).digest()
    root = base64.b64decode(proof["rootHash"])
    path = [base64.b64decode(each) for each in proof["hashes"]]
    verify_inclusion(leaf_hash(body), int(proof["logIndex"]), int(proof["treeSize"]), path, root)
    checkpoint = verify_checkpoint(proof["checkpoint"]["envelope"], "edge.test/log", material.log_key.public_key())
    assert (checkpoint.size, checkpoint.root) == (1, root)


@given(data=st.binary(max_size=100) | st.dictionaries(st.text(), st.text()).map(json.dumps).map(str.encode))
def test_any_bytes_are_no_entry(material, data):
    with pytest.raises(EntryInvalid):
        parse_entry(data, issuer=material.issuer, now=NOW)
