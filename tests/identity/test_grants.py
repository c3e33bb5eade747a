"""What clients get: resources, scopes, bindings, standing and policies, as a matrix."""

import warnings
from datetime import timedelta

import pytest

from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.errors import UmecError
from umec_core.jose import KeySet, peek_claims, peek_header, thumbprint, verify_jwt
from umec_core.refusals import MOST_OF_ADDRESS
from umec_core.standing import Standing

ISSUER = "https://authority.test:8443"
MP1 = "https://authority.test:8444/"
REGISTRY = "https://authority.test:5443/"


def code(answer):
    body = answer.json()
    return answer.status_code, body["error"], body["code"]


def test_an_access_token_has_the_claims_of_rfc_9068(play):
    async def scenario(world):
        answer = await world.ask(world.form(scope="mec:dns mec:app"))
        body = answer.json()
        assert answer.headers["cache-control"] == "no-store"
        assert {name: body[name] for name in ("token_type", "expires_in", "scope")} == {
            "token_type": "DPoP",
            "expires_in": 300,
            "scope": "mec:app mec:dns",
        }
        keys = KeySet.from_jwks((await world.http.get("/oauth2/jwks")).json())
        claims = verify_jwt(body["access_token"], keys, typ="at+jwt")
        expected = "iss sub client_id aud iat nbf exp jti scope cnf tenant instance registration"
        assert sorted(claims) == sorted(expected.split())
        assert (claims["iss"], claims["sub"], claims["aud"], claims["tenant"]) == (ISSUER, "app", MP1, "transit")
        assert claims["cnf"] == {"jkt": thumbprint(world.keys["app"])}
        assert peek_header(body["access_token"])["kid"] in keys
        who = await world.api(MP1).verify(world.presented(body["access_token"]))
        assert who.scopes == {"mec:app", "mec:dns"}
        with pytest.raises(UmecError) as caught:
            await world.api(REGISTRY).verify(world.presented(body["access_token"]))
        assert caught.value.code == "token-audience"

    play(scenario)


@pytest.mark.parametrize(
    ("client", "changes", "expected"),
    [
        ("app", {"resource": "https://elsewhere.test/"}, "target-invalid"),
        ("app", {"resource": MP1.rstrip("/")}, "target-invalid"),
        ("operator", {}, "target-invalid"),
        ("app", {"scope": "mec:everything"}, "scope-invalid"),
        ("app", {"scope": "mec:app platform:admin"}, "scope-invalid"),
        ("app", {"scope": "mec:app mec:app"}, "scope-invalid"),
        ("app", {"scope": "mec:app  mec:dns"}, "scope-invalid"),
        ("app", {"resource": REGISTRY, "scope": "mec:app"}, "scope-invalid"),
        ("builder", {"resource": REGISTRY, "scope": "images:promote"}, "scope-invalid"),
        ("umec-platform", {"resource": f"{ISSUER}/attest/v1", "scope": "attest:admin"}, "scope-invalid"),
        ("app", {"resource": f"{ISSUER}/platform/v1"}, "grant-denied"),
        ("app", {"resource": "sigstore"}, "grant-denied"),
        ("operator", {"resource": "sigstore"}, "grant-denied"),
        ("builder", {"resource": MP1}, "grant-denied"),
    ],
)
def test_refused(shared, client, changes, expected):
    async def scenario(world):
        assert code(await world.ask(world.form(client, **changes), client=client))[2] == expected
        good = {"operator": f"{ISSUER}/attest/v1", "umec-platform": f"{ISSUER}/attest/v1", "builder": REGISTRY}
        form = world.form(client, resource=good.get(client, MP1))
        assert (await world.ask(form, client=client)).status_code == 200

    shared(scenario)


def test_several_resources(shared):
    async def scenario(world):
        answer = await world.ask(world.form(resource=[MP1, REGISTRY]))
        assert code(answer) == (400, "invalid_target", "target-invalid")
        assert (await world.ask(world.form(resource=MP1))).status_code == 200

    shared(scenario)


def test_dpop_is_neither_forgotten_nor_ignored(play):
    async def scenario(world):
        assert code(await world.ask(headers={})) == (400, "invalid_dpop_proof", "dpop-missing")
        other = make_proof(world.keys["app"], "POST", f"{ISSUER}/oauth2/revoke", now=world.now)
        for proof in ("nonsense", other, make_proof(world.keys["app"], "GET", f"{ISSUER}/oauth2/token", now=world.now)):
            assert code(await world.ask(headers={"DPoP": proof})) == (400, "invalid_dpop_proof", "dpop-invalid")
        proof = world.proof()
        assert (await world.ask(headers={"DPoP": proof})).status_code == 200
        assert code(await world.ask(headers={"DPoP": proof})) == (400, "invalid_dpop_proof", "dpop-replayed")

    play(scenario)


def test_bearer_only_where_registered_and_dpop_wins(shared):
    async def scenario(world):
        plain = (await world.ask(client="plain", headers={})).json()
        assert plain["token_type"] == "Bearer"
        assert "cnf" not in peek_claims(plain["access_token"])
        bound = (await world.ask(client="plain")).json()
        assert bound["token_type"] == "DPoP"
        assert "jkt" in peek_claims(bound["access_token"])["cnf"]

    shared(scenario)


def test_a_client_on_a_node_has_tokens_while_its_node_stands(play):
    async def scenario(world):
        token = await world.token("housed")
        claims = peek_claims(token)
        assert (claims["node"], claims["generation"]) == ("lamp-7", 3)
        api = world.api(MP1)
        assert (await api.verify(world.presented(token, "housed"))).generation == 3
        world.stand("lamp-7", Standing.UNTRUSTED, 4)
        with pytest.raises(UmecError) as caught:
            await api.verify(world.presented(token, "housed"))
        assert caught.value.code == "standing-fallen"
        assert code(await world.ask(client="housed")) == (401, "invalid_client", "standing-fallen")
        assert (await world.ask(client="app")).status_code == 200, "who lives elsewhere is not concerned"
        world.now = world.now.replace(second=30)
        assert code(await world.ask(client="housed")) == (503, "temporarily_unavailable", "standing-stale")
        world.stand("lamp-7", Standing.TRUSTED, 5)
        assert peek_claims(await world.token("housed"))["generation"] == 5

    play(scenario)


def test_a_builders_identity_token_is_what_sigstore_clients_take(play):
    async def scenario(world):
        await world.close()
        world.now = system_clock()
        await world.open()
        token = await world.token("builder", resource="sigstore")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sigstore.oidc import IdentityToken  # noqa: PLC0415
        parsed = IdentityToken(token)
        assert parsed.identity == f"{ISSUER}/identity/v1/clients/builder"
        assert parsed.issuer == ISSUER
        assert parsed.in_validity_period()
        keys = KeySet.from_jwks((await world.http.get("/oauth2/jwks")).json())
        assert verify_jwt(token, keys, typ="JWT")["aud"] == "sigstore"
        with pytest.raises(UmecError) as caught:
            await world.api("sigstore", base=ISSUER).verify(world.presented(token, "builder"))
        assert caught.value.code == "token-invalid", "an identity token opens no API"

    play(scenario)


def test_issuances_and_refusals_are_in_the_audit_log(play):
    async def scenario(world):
        await world.token(scope="mec:app")
        await world.ask(world.form(scope="platform:admin"))
        await world.ask(world.form(client_assertion=world.assertion("app", key=world.keys["builder"])))
        entries = (await world.service.export_audit())["entries"]
        seen = [(entry["actor"], entry["action"], entry["outcome"], entry.get("code")) for entry in entries]
        assert ("app", "token.issue", "done", None) in seen
        assert ("app", "token.issue", "refused", "scope-invalid") in seen
        assert ("unauthenticated", "token.issue", "refused", "client-invalid") in seen
        assert ("installation", "client.register", "done", None) in seen

    play(scenario)


def test_the_log_of_refusals_to_strangers_is_bounded(play):
    async def scenario(world):
        more = 7
        for _ in range(MOST_OF_ADDRESS + more):
            await world.ask(world.form(client_assertion="nonsense"))
        entries = (await world.service.export_audit())["entries"]
        assert sum(entry["outcome"] == "refused" for entry in entries) == MOST_OF_ADDRESS
        world.now += timedelta(minutes=1)
        await world.service.tend()
        last = (await world.service.export_audit())["entries"][-1]
        assert (last["actor"], last["action"]) == ("identity", "refusal.unlogged")
        assert last["facts"] == {"count": more, "addresses": 1, "codes": {"token.issue assertion-invalid": more}}

    play(scenario)


def test_the_token_endpoint_is_counted_under_its_path_and_takes_post_only(play):
    async def scenario(world):
        answer = await world.http.get("/oauth2/token")
        assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")
        await world.token()
        assert 'method="POST",route="/oauth2/token",status="200"' in (await world.http.get("/metrics")).text

    play(scenario)
