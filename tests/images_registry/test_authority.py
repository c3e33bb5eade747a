"""sigstore-python, off the shelf, signs with the private authority over HTTP and verifies offline."""

import base64
import hashlib
import json

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore.dsse import StatementBuilder, Subject
from sigstore.errors import VerificationError
from sigstore.models import Bundle, ClientTrustConfig, TrustedRoot
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext
from sigstore.verify import Verifier
from sigstore.verify.policy import Identity

from umec_core.clock import system_clock
from umec_core.http import create_app
from umec_images.authority import SigningAuthority

ARTIFACT = b"an artifact"
DIGEST = hashlib.sha256(b"a manifest").hexdigest()


@pytest.fixture(scope="module")
def authority(served, issuer, tmp_path_factory):
    async def make(url):
        opened = await SigningAuthority.open(
            tmp_path_factory.mktemp("authority"), url=url, issuer=issuer.url, keys=issuer.keys, clock=system_clock
        )
        return create_app("images", [opened.router]), opened.close

    with served(make) as running:
        yield running.url


@pytest.fixture(scope="module")
def trust(authority):
    return ClientTrustConfig.from_json(httpx.get(f"{authority}/sigstore/client_trust_config.json").text)


@pytest.fixture(scope="module")
def offline(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("root") / "trusted_root.json"
    path.write_bytes(httpx.get(f"{authority}/sigstore/trusted_root.json").content)
    return Verifier(trusted_root=TrustedRoot.from_file(str(path)))


def policy(issuer):
    return Identity(identity=f"{issuer.url}/identity/v1/clients/builder", issuer=issuer.url)


def sign_statement(trust, token):
    subject = Subject(name="alpha/app", digest={"sha256": DIGEST})
    statement = (
        StatementBuilder()
        .subjects([subject])
        .predicate_type("https://slsa.dev/provenance/v1")
        .predicate({"buildDefinition": {}})
        .build()
    )
    with SigningContext.from_trust_config(trust).signer(IdentityToken(token)) as signer:
        return signer.sign_dsse(statement)


def test_a_foreign_identity_is_refused(offline, trust, issuer):
    bundle = sign_statement(trust, issuer.identity())
    with pytest.raises(VerificationError):
        offline.verify_dsse(bundle, Identity(identity="https://somebody.else", issuer=issuer.url))
    with pytest.raises(VerificationError):
        offline.verify_dsse(bundle, Identity(identity=policy(issuer)._identity, issuer="https://other.issuer"))
    kind, payload = offline.verify_dsse(Bundle.from_json(bundle.to_json()), policy(issuer))
    assert kind == "application/vnd.in-toto+json"
    assert json.loads(payload)["subject"][0]["digest"]["sha256"] == DIGEST


def test_another_artifact_is_refused(offline, trust, issuer):
    with SigningContext.from_trust_config(trust).signer(IdentityToken(issuer.identity())) as signer:
        bundle = signer.sign_artifact(ARTIFACT)
    with pytest.raises(VerificationError):
        offline.verify_artifact(ARTIFACT + b"!", bundle, policy(issuer))
    offline.verify_artifact(ARTIFACT, bundle, policy(issuer))


def test_the_log_grows_and_every_proof_holds(offline, trust, issuer):
    bundles = [sign_statement(trust, issuer.identity()) for _ in range(3)]
    sizes = [json.loads(bundle.to_json())["verificationMaterial"]["tlogEntries"][0]["logIndex"] for bundle in bundles]
    assert [int(size) - int(sizes[0]) for size in sizes] == [0, 1, 2]
    for bundle in bundles:
        offline.verify_dsse(bundle, policy(issuer))


def csr(key=None):
    key = key or ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def ask(authority, token, request=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    body = {"certificateSigningRequest": base64.b64encode(csr() if request is None else request).decode()}
    return httpx.post(f"{authority}/sigstore/fulcio/api/v2/signingCert", json=body, headers=headers)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://other.issuer"}, "identity-token-invalid"),
        ({"aud": "somebody"}, "identity-token-invalid"),
        ({"aud": ["sigstore"]}, "identity-token-invalid"),
        ({"typ": "at+jwt"}, "identity-token-invalid"),
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "identity-token-invalid"),
        ({"exp": 1_700_000_000}, "identity-token-expired"),
        ({"nbf": 4_000_000_000}, "identity-token-expired"),
        ({"exp": "never"}, "identity-token-invalid"),
        ({"sub": "no uri"}, "identity-token-subject"),
        ({"sub": "https://a/\nb"}, "identity-token-subject"),
    ],
)
def test_a_bad_identity_token_gets_no_certificate(authority, issuer, changes, code):
    refused = ask(authority, issuer.identity(**changes))
    assert (refused.status_code, refused.json()["code"]) == (401, code)
    assert ask(authority, issuer.identity()).status_code == 201


def test_nobody_gets_no_certificate(authority):
    assert ask(authority, None).json()["code"] == "identity-token-missing"


def test_a_key_that_does_not_prove_itself_gets_no_certificate(authority, issuer):
    good = x509.load_pem_x509_csr(csr())
    raw = bytearray(good.public_bytes(Encoding.DER))
    raw[-1] ^= 1
    forged = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(raw) + b"-----END CERTIFICATE REQUEST-----\n"
    refused = ask(authority, issuer.identity(), forged)
    assert (refused.status_code, refused.json()["code"]) == (422, "csr-proof-invalid")
    big = csr(ec.generate_private_key(ec.SECP384R1()))
    assert ask(authority, issuer.identity(), big).json()["code"] == "csr-invalid"
    assert ask(authority, issuer.identity(), b"nonsense").json()["code"] == "csr-invalid"


def log_request(bundle):
    entry = json.loads(bundle.to_json())["verificationMaterial"]["tlogEntries"][0]
    spec = json.loads(base64.b64decode(entry["canonicalizedBody"]))["spec"]["hashedRekordV002"]
    return {"hashedRekordRequestV002": {"digest": spec["data"]["digest"], "signature": spec["signature"]}}, entry


def test_a_signature_that_does_not_verify_is_not_logged(authority, trust, issuer):
    request, entry = log_request(sign_statement(trust, issuer.identity()))
    url = f"{authority}/sigstore/rekor/api/v2/log/entries"
    forged = json.loads(json.dumps(request))
    forged["hashedRekordRequestV002"]["digest"] = base64.b64encode(bytes(32)).decode()
    refused = httpx.post(url, json=forged)
    assert (refused.status_code, refused.json()["code"]) == (422, "log-entry-signature")
    again = httpx.post(url, json=request)
    assert (again.status_code, again.json()["logIndex"]) == (201, entry["logIndex"])


def test_a_foreign_certificate_is_not_logged(authority, issuer, served, tmp_path):
    async def make(url):
        opened = await SigningAuthority.open(tmp_path, url=url, issuer=issuer.url, keys=issuer.keys, clock=system_clock)
        return create_app("images", [opened.router]), opened.close

    with served(make) as other:
        config = ClientTrustConfig.from_json(httpx.get(f"{other.url}/sigstore/client_trust_config.json").text)
        request, _ = log_request(sign_statement(config, issuer.identity()))
    refused = httpx.post(f"{authority}/sigstore/rekor/api/v2/log/entries", json=request)
    assert refused.json()["code"] == "log-entry-certificate-foreign"


def test_malformed_requests_are_refused(authority):
    entries = httpx.post(f"{authority}/sigstore/rekor/api/v2/log/entries", json={"dsseRequestV002": {}})
    assert (entries.status_code, entries.json()["code"]) == (400, "log-entry-invalid")
    stamp = httpx.post(f"{authority}/sigstore/tsa/api/v1/timestamp", content=b"0\x03\x02\x01\x01")
    assert (stamp.status_code, stamp.json()["code"]) == (400, "timestamp-request-invalid")


def test_an_entry_is_announced_as_json(authority, trust, issuer):
    request, _ = log_request(sign_statement(trust, issuer.identity()))
    url, content = f"{authority}/sigstore/rekor/api/v2/log/entries", json.dumps(request).encode()
    refused = httpx.post(url, content=content, headers={"Content-Type": "text/plain"})
    assert (refused.status_code, refused.json()["code"]) == (400, "content-type-wrong")
    assert httpx.post(url, content=content, headers={"Content-Type": "application/json"}).status_code == 201
