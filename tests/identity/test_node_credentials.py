"""Nodes: attestation result, proof of possession, certificate, certificate-bound token; each fault and the good one."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from umec_core.errors import UmecError
from umec_core.jose import peek_claims
from umec_core.standing import Standing
from umec_core.tokens import Presented, certificate_thumbprint
from umec_identity.certificates.authority import CertificateAuthority

ISSUER = "https://authority.test:8443"
REGISTRY = "https://authority.test:5443/"


def code(answer):
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def csr(make_csr):
    return make_csr(generate_private_key(SECP256R1()))


EARS = [
    ({"iss": "https://elsewhere.test"}, "attestation-invalid"),
    ({"aud": "https://elsewhere.test"}, "attestation-invalid"),
    ({"aud": [ISSUER, "https://elsewhere.test"]}, "attestation-invalid"),
    ({"aud": ...}, "attestation-invalid"),
    ({"sub": "LAMP 7"}, "attestation-invalid"),
    ({"sub": ...}, "attestation-invalid"),
    ({"exp": ...}, "attestation-invalid"),
    ({"exp": 1}, "attestation-invalid"),
    ({"exp": 2**39}, "attestation-invalid"),
    ({"iat": ...}, "attestation-invalid"),
    ({"jti": ...}, "attestation-invalid"),
    ({"typ": "JWT"}, "attestation-invalid"),
    ({"eat_profile": "tag:elsewhere"}, "attestation-invalid"),
    ({"submods": {}}, "attestation-invalid"),
    ({"submods": {"node": {"ear.status": "affirming"}, "other": {"ear.status": "none"}}}, "attestation-invalid"),
    ({"status": "contraindicated"}, "attestation-verdict"),
    ({"status": "none"}, "attestation-verdict"),
    ({"status": ["affirming"]}, "attestation-verdict"),
    ({"cnf": ...}, "attestation-invalid"),
    ({"cnf": {"jkt": "x"}}, "attestation-invalid"),
    ({"cnf": {"jwk": {"kty": "oct", "k": "AAAA"}}}, "attestation-invalid"),
    ({"umec": ...}, "attestation-invalid"),
    ({"umec": {}}, "attestation-invalid"),
]


@pytest.mark.parametrize(("changes", "expected"), EARS)
def test_attestation_results(shared, changes, expected):
    async def scenario(world):
        assert code(await world.certify(ear=world.ear(**changes))) == (401, expected)
        assert (await world.certify()).status_code == 201

    shared(scenario)


@pytest.mark.parametrize("changes", [{"generation": 2}, {"generation": 3, "extra": 1}, {"generation": True}])
def test_what_an_attestation_result_rests_on(shared, changes):
    async def scenario(world):
        expected = "standing-fallen" if changes == {"generation": 2} else "attestation-invalid"
        assert code(await world.certify(ear=world.ear(umec=world.umec(**changes))))[1] == expected
        assert (await world.certify()).status_code == 201

    shared(scenario)


def test_a_result_of_another_verifier_or_another_node(play):
    async def scenario(world):
        stranger = generate_private_key(SECP256R1())
        assert code(await world.certify(ear=world.ear(key=stranger))) == (401, "attestation-invalid")
        assert code(await world.certify(ear="nonsense")) == (401, "attestation-invalid")
        world.stand("lamp-8", Standing.TRUSTED, 3)
        assert code(await world.certify(ear=world.ear(sub="lamp-8"))) == (401, "attestation-pop-invalid")
        assert (await world.certify()).status_code == 201

    play(scenario)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iss": "lamp-8"}, "attestation-pop-invalid"),
        ({"iss": ...}, "attestation-pop-invalid"),
        ({"sub": "lamp-8"}, "attestation-pop-invalid"),
        ({"aud": "https://elsewhere.test"}, "attestation-pop-invalid"),
        ({"aud": [ISSUER]}, "attestation-pop-invalid"),
        ({"iat": ...}, "attestation-pop-invalid"),
        ({"iat": 1}, "attestation-pop-invalid"),
        ({"iat": 2**39}, "attestation-pop-invalid"),
        ({"exp": 1}, "attestation-pop-invalid"),
        ({"jti": ...}, "attestation-pop-invalid"),
        ({"typ": "JWT"}, "attestation-pop-invalid"),
        ({"csr_sha256": "0" * 64}, "attestation-pop-invalid"),
        ({"csr_sha256": ...}, "attestation-pop-invalid"),
        ({"challenge": "nonsense"}, "attestation-challenge"),
        ({"challenge": "A" * 75}, "attestation-challenge"),
    ],
)
def test_proofs_of_possession(shared, csr, csr_digest, changes, expected):
    async def scenario(world):
        pop = await world.possession(**({"csr_sha256": csr_digest(csr)} | changes))
        assert code(await world.certify(pop=pop, csr=csr)) == (401, expected)
        pop = await world.possession(csr_sha256=csr_digest(csr))
        assert (await world.certify(pop=pop, csr=csr)).status_code == 201

    shared(scenario)


def test_a_proof_by_another_key(shared):
    async def scenario(world):
        pop = await world.possession(key=generate_private_key(SECP256R1()))
        assert code(await world.ask_as_node(pop=pop)) == (401, "attestation-pop-invalid")

    shared(scenario)


def test_a_challenge_is_good_once_and_for_a_minute(play, csr, csr_digest):
    async def scenario(world):
        challenge = await world.challenge()
        for expected in (201, 401):
            pop = await world.possession(csr_sha256=csr_digest(csr), challenge=challenge)
            answer = await world.certify(pop=pop, csr=csr)
            assert answer.status_code == expected
        assert code(answer)[1] == "attestation-challenge"
        old = await world.challenge()
        world.later(seconds=61)
        pop = await world.possession(csr_sha256=csr_digest(csr), challenge=old)
        assert code(await world.certify(pop=pop, csr=csr))[1] == "attestation-challenge"

    play(scenario)


def test_a_proof_is_good_once(play, csr, csr_digest):
    async def scenario(world):
        pop = await world.possession(csr_sha256=csr_digest(csr), jti="one")
        assert (await world.certify(pop=pop, csr=csr)).status_code == 201
        assert code(await world.certify(pop=pop, csr=csr))[1] == "attestation-challenge"
        again = await world.possession(csr_sha256=csr_digest(csr), jti="one")
        assert code(await world.certify(pop=again, csr=csr))[1] == "attestation-pop-replayed"

    play(scenario)


def test_certificate_requests(shared, make_csr, csr):
    async def scenario(world):
        lines = csr.splitlines()
        spoilt = "\n".join([*lines[:-2], lines[-2][:-4] + "AAA=", lines[-1]])
        for request in ("nonsense", make_csr(generate_private_key(SECP384R1())), spoilt, "A" * 9000):
            answer = await world.http.post("/identity/v1/certificates", json={"csr": request})
            assert code(answer) == (400, "csr-invalid")
        for body in ({}, {"csr": csr, "more": 1}, {"csr": 5}):
            answer = await world.http.post("/identity/v1/certificates", json=body)
            assert code(answer) == (400, "invalid-input")
        answer = await world.http.post("/identity/v1/certificates", json={"csr": csr})
        assert code(answer) == (401, "client-authentication-missing")

    shared(scenario)


def test_a_certificate_says_what_it_must_and_ends_soon(shared):
    async def scenario(world):
        answer = await world.certify(ear=world.ear(exp=int(world.now.timestamp()) + 120))
        body = answer.json()
        certificate = x509.load_pem_x509_certificate(body["certificate"].encode())
        authority = x509.load_pem_x509_certificate(body["chain"].encode())
        certificate.verify_directly_issued_by(authority)
        assert body["chain"] == (await world.http.get("/identity/v1/ca")).text
        assert body["expires_at"] == "2026-11-22T12:02:00Z"
        extensions = certificate.extensions
        assert extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        ) == ["urn:umec:node:lamp-7"]
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
            ExtendedKeyUsageOID.CLIENT_AUTH
        ]
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        longest = await world.certify(ear=world.ear(exp=int(world.now.timestamp()) + 600))
        whole = x509.load_pem_x509_certificate(longest.json()["certificate"].encode())
        assert whole.not_valid_after_utc - whole.not_valid_before_utc <= timedelta(minutes=10)

    shared(scenario)


def test_a_nodes_token_is_bound_to_its_certificate(play):
    async def scenario(world):
        assert code(await world.ask_as_node()) == (401, "client-certificate-missing")
        await world.show_certificate()
        body = (await world.ask_as_node(scope="images:pull node:host")).json()
        claims = peek_claims(body["access_token"])
        assert claims["cnf"] == {"x5t#S256": certificate_thumbprint(world.certificate)}
        assert (claims["sub"], claims["node"], claims["generation"], body["token_type"]) == (
            "lamp-7",
            "lamp-7",
            3,
            "Bearer",
        )
        shown = Presented("Bearer", body["access_token"], None, "GET", f"{REGISTRY}v2/", world.certificate)
        who = await world.api(REGISTRY).verify(shown)
        assert who.scopes == {"node:host", "images:pull"}
        with pytest.raises(UmecError) as caught:
            await world.api(REGISTRY).verify(Presented("Bearer", body["access_token"], None, "GET", REGISTRY, None))
        assert caught.value.code == "token-binding"

    play(scenario)


def test_other_certificates(play):
    async def scenario(world):
        await world.show_certificate()
        mine = world.certificate
        world.certificate = world.service.authority.certificate.public_bytes(Encoding.DER)
        assert code(await world.ask_as_node()) == (401, "client-certificate-invalid")
        now, key = world.now, generate_private_key(SECP256R1()).public_key()
        for node, until in (("lamp-8", now + timedelta(minutes=5)), ("lamp-7", now + timedelta(minutes=5))):
            forged = world.service.authority.issue(node, key, until=until, now=now)
            world.certificate = forged.public_bytes(Encoding.DER)
            assert code(await world.ask_as_node()) == (401, "client-certificate-invalid"), "not in the register"
        world.certificate = mine
        assert (await world.ask_as_node()).status_code == 200
        world.later(seconds=301)
        assert code(await world.ask_as_node()) == (401, "client-certificate-invalid"), "its time is over"

    play(scenario)


def test_a_certificate_of_a_node_that_changed(play):
    async def scenario(world):
        await world.show_certificate()
        assert (await world.ask_as_node()).status_code == 200
        world.stand("lamp-7", Standing.UNTRUSTED, 4)
        assert code(await world.ask_as_node()) == (401, "standing-fallen"), "the old result is worth nothing"
        assert code(await world.certify()) == (403, "standing-fallen")
        fresh = world.ear(umec=world.umec(generation=4))
        assert code(await world.certify(ear=fresh)) == (403, "standing-fallen")
        world.stand("lamp-7", Standing.TRUSTED, 5)
        fresh = world.ear(umec=world.umec(generation=5))
        assert code(await world.ask_as_node(ear=fresh)) == (401, "client-certificate-fallen")
        csr_answer = await world.certify(ear=fresh)
        certificate = x509.load_pem_x509_certificate(csr_answer.json()["certificate"].encode())
        world.certificate = certificate.public_bytes(Encoding.DER)
        assert (await world.ask_as_node(ear=fresh)).status_code == 200

    play(scenario)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scope": "platform:admin"}, "scope-invalid"),
        ({"resource": ...}, "target-invalid"),
        ({"client_id": "lamp-8"}, "attestation-invalid"),
        ({"client_assertion": "x"}, "client-authentication-double"),
        ({"resource": "sigstore", "scope": ...}, "grant-denied"),
    ],
)
def test_what_nodes_do_not_get(shared, changes, expected):
    async def scenario(world):
        await world.show_certificate()
        answer = await world.ask_as_node(**changes)
        assert code(answer)[1] == expected
        assert (await world.ask_as_node(client_id="lamp-7")).status_code == 200

    shared(scenario)


def test_a_node_that_sends_a_dpop_proof_is_not_silently_bound_otherwise(play):
    async def scenario(world):
        await world.show_certificate()
        headers = {
            "OAuth-Client-Attestation": world.ear(),
            "OAuth-Client-Attestation-PoP": await world.possession(),
            "DPoP": world.proof(),
        }
        form = {"grant_type": "client_credentials", "resource": REGISTRY}
        answer = await world.http.post("/oauth2/token", data=form, headers=headers)
        assert code(answer) == (400, "binding-conflict")
        answer = await world.http.post("/oauth2/token", data=form, headers={"OAuth-Client-Attestation": world.ear()})
        assert code(answer) == (401, "attestation-invalid")

    play(scenario)


def test_an_expired_platform_ca_issues_nothing(tmp_path):
    made = datetime(2026, 11, 22, 12, tzinfo=UTC)
    authority = CertificateAuthority.open(tmp_path, made)
    key = generate_private_key(SECP256R1()).public_key()
    begins, ends = authority.certificate.not_valid_before_utc, authority.certificate.not_valid_after_utc
    for now in (begins - timedelta(seconds=1), ends, ends + timedelta(days=1)):
        with pytest.raises(UmecError) as caught:
            authority.issue("lamp-7", key, until=now + timedelta(minutes=5), now=now)
        assert caught.value.code == "platform-ca-expired"
    last = ends - timedelta(seconds=1)
    assert authority.issue("lamp-7", key, until=last + timedelta(minutes=5), now=last).not_valid_after_utc == ends
