"""Checks that others would hide: each alone, with everything else good."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from umec_core.errors import UmecError
from umec_core.jose import public_jwk
from umec_identity.authentication.assertion import MAX_ASSERTION, peek_assertion
from umec_identity.authentication.service import Authenticated, method_of
from umec_identity.certificates.authority import MAX_CSR, CertificateAuthority, read_csr
from umec_identity.clients.instances import check_instance_row
from umec_identity.clients.rows import ClientRow
from umec_identity.clients.service import MAX_KEYS
from umec_identity.forms import MAX_HEADER, OAuthRequest
from umec_identity.revocation.service import Revocation
from umec_identity.settings import IdentitySettings

ISSUER = "https://authority.test:8443"
MP1 = "https://authority.test:8444"
REGISTRY = "https://authority.test:5443"
FORM = ("content-type", "application/x-www-form-urlencoded")


def p256():
    return ec.generate_private_key(ec.SECP256R1())


def code_of(work, *arguments, **named):
    with pytest.raises(UmecError) as refused:
        work(*arguments, **named)
    return refused.value.code


async def refusal(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


# --- clients ---------------------------------------------------------------------------------------------------------


def test_a_long_assertion_is_not_looked_at(shared):
    async def scenario(world):
        for size, good in ((100, True), (MAX_ASSERTION, False)):
            assertion = world.assertion("app", more="x" * size)
            if good:
                assert peek_assertion(assertion, issuer=ISSUER, now=world.now).client_id == "app"
            else:
                assert code_of(peek_assertion, assertion, issuer=ISSUER, now=world.now) == "assertion-invalid"

    shared(scenario)


@pytest.mark.parametrize(
    ("body", "headers"), [(b"client_secret=s", []), (b"a=b", [("authorization", "Basic YTpi")])], ids=["form", "header"]
)
def test_a_secret_is_no_method_of_ours(body, headers):
    asked = OAuthRequest.build(body, [FORM, *headers], certificate=None, address="::1")
    assert code_of(method_of, asked) == "client-authentication-unsupported"


def test_a_form_says_that_it_is_one():
    build = {"certificate": None, "address": "::1"}
    for headers in ([], [("content-type", "application/json")]):
        assert code_of(OAuthRequest.build, b"a=b", headers, **build) == "request-invalid"
    assert OAuthRequest.build(b"a=b", [FORM], **build).form == {"a": "b"}


def test_a_header_is_bounded():
    build = {"certificate": None, "address": "::1"}
    long = ("dpop", "x" * (MAX_HEADER + 1))
    assert code_of(OAuthRequest.build, b"a=b", [FORM, long], **build) == "request-invalid"
    assert OAuthRequest.build(b"a=b", [FORM, ("dpop", "x" * MAX_HEADER)], **build).proof


def test_a_client_has_so_many_keys_at_most(shared):
    async def scenario(world):
        for count, status in ((MAX_KEYS + 1, 400), (MAX_KEYS, 201)):
            keys = [public_jwk(p256()) for _ in range(count)]
            body = {"client_id": "many", "kind": "builder", "tenant": "transit", "jwks": {"keys": keys}}
            answer = await world.call("operator", "POST", "/identity/v1/clients", json=body)
            assert answer.status_code == status, answer.text
        assert (await world.call("operator", "DELETE", "/identity/v1/clients/many")).status_code == 204

    shared(scenario)


def test_only_an_application_is_an_instance():
    row = ClientRow(client_id="c", kind="application", tenant="t", node="n", instance="i")
    check_instance_row(row)
    row.kind = "service"
    assert code_of(check_instance_row, row) == "registration-denied"


# --- what is asked for -----------------------------------------------------------------------------------------------


def test_a_client_of_one_resource_has_no_other(play):
    async def scenario(world):
        await world.service.clients.register(
            world.client(
                "one", kind="builder", tenant="transit", scopes=["images:pull"], resources=[f"{ISSUER}/identity/v1"]
            ),
            actor="test",
        )
        answer = await world.ask(world.form("one", resource=f"{REGISTRY}/", scope="images:pull"), client="one")
        await refusal(answer, 400, "target-invalid")
        assert await world.token("builder", resource=f"{REGISTRY}/", scope="images:pull")

    play(scenario)


def test_only_builders_have_signing_identities(shared):
    async def scenario(world):
        answer = await world.ask(world.form("app", resource="sigstore"))
        said = await refusal(answer, 400, "grant-denied")
        assert "for builders only" in said["error_description"]  # whatever the policies say
        assert (await world.ask(world.form("builder", resource="sigstore"), client="builder")).status_code == 200

    shared(scenario)


def test_who_names_no_resource_is_told_so(shared):
    async def scenario(world):
        said = await refusal(await world.ask(world.form("builder"), client="builder"), 400, "target-invalid")
        assert "names no resource" in said["error_description"]

    shared(scenario)


def test_a_denial_is_of_one_registration():
    denials = Revocation(None, clock=None)
    denials._clients = {"app": 5}
    claims = {"jti": "j", "client_id": "app"}
    assert denials.denied({**claims, "registration": 5})
    assert denials.denied({**claims, "registration": "5"})  # ours are numbers
    assert not denials.denied({**claims, "registration": 6})
    assert not denials.denied(claims)  # a node of that name


@pytest.mark.parametrize("url", ["http://a", "https://a/", "https://a?b", "https://a#b", "https://a b"])
def test_a_base_url_is_exact(tmp_path, url):
    good = {"issuer": ISSUER, "mp1": MP1, "registry": REGISTRY, "state": tmp_path}
    assert IdentitySettings(**good)
    for name in ("issuer", "mp1", "registry"):
        with pytest.raises(ValidationError):
            IdentitySettings(**{**good, name: url})


# --- nodes -----------------------------------------------------------------------------------------------------------


def test_a_proof_whose_time_has_not_come(shared):
    async def scenario(world):
        await world.show_certificate()
        for later, status in ((3600, 401), (0, 200)):
            pop = await world.possession(nbf=int(world.now.timestamp()) + later)
            answer = await world.ask_as_node(pop=pop)
            assert answer.status_code == status, answer.text
        world.certificate = None

    shared(scenario)


def test_a_proof_for_a_certificate_request_gets_no_token(shared):
    async def scenario(world):
        await world.show_certificate()
        answer = await world.ask_as_node(pop=await world.possession(csr_sha256="ab" * 32))
        await refusal(answer, 401, "attestation-pop-invalid")
        assert (await world.ask_as_node()).status_code == 200
        world.certificate = None

    shared(scenario)


def test_half_an_attestation_is_none(shared):
    async def scenario(world):
        for given in (
            {"OAuth-Client-Attestation-PoP": await world.possession()},
            {"OAuth-Client-Attestation": world.ear()},
        ):
            answer = await world.http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=given)
            said = await refusal(answer, 401, "attestation-invalid")
            assert "come together" in said["error_description"]

    shared(scenario)


def request_for(key):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256())


def test_a_request_for_another_kind_of_key_or_not_signed_with_it(make_csr):
    good = make_csr(p256())
    assert read_csr(good)
    assert read_csr(good + "\n" * (MAX_CSR - len(good)))
    der = bytearray(request_for(p256()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    others = [
        request_for(key).public_bytes(Encoding.PEM)
        for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048))
    ]
    for pem in (forged, *others, good.encode() + b"\n" * MAX_CSR):
        assert code_of(read_csr, pem.decode()) == "csr-invalid"


def test_a_certificate_of_another_ca_node_or_time(tmp_path, shared):
    async def scenario(world):
        now, key = world.now, p256().public_key()
        ca = CertificateAuthority.open(tmp_path, now)
        other = CertificateAuthority.open(tmp_path / "other", now)
        until = now + timedelta(minutes=5)
        mine = ca.issue("lamp-7", key, until=until, now=now)
        ca.check(mine, node="lamp-7", now=now)
        for certificate, node, at in (
            (other.issue("lamp-7", key, until=until, now=now), "lamp-7", now),
            (ca.issue("lamp-8", key, until=until, now=now), "lamp-7", now),
            (mine, "lamp-7", now - timedelta(hours=1)),
            (mine, "lamp-7", until),
        ):
            assert code_of(ca.check, certificate, node=node, now=at) == "client-certificate-invalid"

    (tmp_path / "other").mkdir()
    shared(scenario)


def test_certificates_are_for_nodes_that_attest_and_do_nothing_besides(shared, make_csr, csr_digest):
    async def scenario(world):
        csr = make_csr(p256())
        headers = {"OAuth-Client-Attestation": world.ear()}
        headers["OAuth-Client-Attestation-PoP"] = await world.possession(csr_sha256=csr_digest(csr))
        more = {**headers, "Authorization": "Basic YTpi"}
        answer = await world.http.post("/identity/v1/certificates", json={"csr": csr}, headers=more)
        await refusal(answer, 401, "client-authentication-unsupported")
        plain = {**headers, "Content-Type": "text/plain"}
        answer = await world.http.post("/identity/v1/certificates", json={"csr": csr}, headers=plain)
        await refusal(answer, 400, "content-type-wrong")
        answer = await world.http.post("/identity/v1/certificates", json={"csr": csr}, headers=headers)
        assert answer.status_code == 201, answer.text
        client = Authenticated(client=await world.service.clients.find("app"), node=None, used=())
        with pytest.raises(UmecError) as refused:
            await world.service._certificates.issue(client, read_csr(csr))
        assert refused.value.code == "attestation-invalid"

    shared(scenario)


def test_a_server_whose_database_does_not_answer_is_not_ready(play):
    async def scenario(world):
        await world.service.ready()
        await world.service._store.write(lambda session: session.execute(text(f"DROP TABLE {ClientRow.__tablename__}")))
        with pytest.raises(SQLAlchemyError):
            await world.service.ready()

    play(scenario)


def test_parameters_are_not_sent_in_the_address(shared):
    async def scenario(world):
        headers = {"DPoP": world.proof()}
        answer = await world.http.post("/oauth2/token?scope=mec:app", data=world.form(), headers=headers)
        said = await refusal(answer, 400, "request-invalid")
        assert said["error"] == "invalid_request"
        assert (await world.ask()).status_code == 200

    shared(scenario)
