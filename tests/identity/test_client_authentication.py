"""Client authentication at the token endpoint: one attempt for each fault, and the same without it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from umec_core.jose import private_jwk, public_jwk
from umec_identity.errors import TooManyRequests
from umec_identity.limits import Buckets

ISSUER = "https://authority.test:8443"
DAY = 86400


def code(answer):
    body = answer.json()
    return answer.status_code, body["error"], body["code"]


def refused(play, fault, expected, *, client="app"):
    """`fault(world)` gives the form of one bad request; the good one beside it succeeds."""

    async def scenario(world):
        assert code(await world.ask(fault(world), client=client)) == expected
        assert (await world.ask(client=client)).status_code == 200

    play(scenario)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aud": "https://authority.test:8443/oauth2/token"}, "assertion-audience"),
        ({"aud": [ISSUER]}, "assertion-audience"),
        ({"aud": [ISSUER, "https://elsewhere.test"]}, "assertion-audience"),
        ({"aud": "https://elsewhere.test"}, "assertion-audience"),
        ({"aud": ...}, "assertion-audience"),
        ({"sub": ...}, "assertion-invalid"),
        ({"iss": ...}, "assertion-invalid"),
        ({"iss": "builder"}, "assertion-invalid"),
        ({"iat": ...}, "assertion-invalid"),
        ({"exp": ...}, "assertion-invalid"),
        ({"jti": ...}, "assertion-invalid"),
        ({"jti": "j" * 129}, "assertion-invalid"),
        ({"exp": 1}, "assertion-expired"),
        ({"exp": 5 * 365 * DAY + 1795348800}, "assertion-expired"),
        ({"iat": 1795348800 + DAY, "exp": 1795348800 + DAY + 60}, "assertion-expired"),
        ({"nbf": 2**39}, "assertion-expired"),
        ({"typ": "at+jwt"}, "assertion-invalid"),
    ],
)
def test_assertions(shared, changes, expected):
    refused(
        shared,
        lambda world: world.form(client_assertion=world.assertion("app", **changes)),
        (401, "invalid_client", expected),
    )


@pytest.mark.parametrize("skew", [10, -200])
def test_clocks_may_differ(shared, skew):
    async def scenario(world):
        start = int(world.now.timestamp()) + skew
        form = world.form(client_assertion=world.assertion("app", iat=start, nbf=start, exp=start + 250))
        assert (await world.ask(form)).status_code == 200

    shared(scenario)


def test_unknown_client_and_bad_signature_are_one_answer(play):
    async def scenario(world):
        stranger = world.keys["stranger"] = world.client("stranger", kind="builder") and world.keys["stranger"]
        answers = [
            await world.ask(world.form(client_assertion=world.assertion("stranger"))),
            await world.ask(world.form(client_assertion=world.assertion("app", key=stranger))),
            await world.ask(world.form(client_assertion=world.assertion("app")[:-6] + "AAAAAA")),
            await world.ask(world.form(client_id="builder")),
        ]
        assert {answer.content for answer in answers} == {answers[0].content}
        assert {code(answer) for answer in answers} == {(401, "invalid_client", "client-invalid")}
        assert (await world.ask()).status_code == 200

    play(scenario)


def test_an_assertion_is_good_once_even_after_a_refusal_and_after_a_restart(play):
    async def scenario(world):
        first, second = world.form(), world.form(scope="platform:admin")
        assert (await world.ask(first)).status_code == 200
        assert code(await world.ask(first)) == (401, "invalid_client", "assertion-replayed")
        assert code(await world.ask(second))[2] == "scope-invalid"
        again = {**second, "scope": "mec:app"}
        assert code(await world.ask(again)) == (401, "invalid_client", "assertion-replayed")
        await world.close()
        await world.open()
        assert code(await world.ask(first)) == (401, "invalid_client", "assertion-replayed")
        assert (await world.ask()).status_code == 200

    play(scenario)


@pytest.mark.parametrize(
    ("changes", "headers", "expected"),
    [
        ({"client_assertion": ..., "client_assertion_type": ...}, {}, "client-authentication-missing"),
        ({"client_secret": "s"}, {}, "client-authentication-double"),
        ({}, {"Authorization": "Basic YTpi"}, "client-authentication-double"),
        ({}, {"OAuth-Client-Attestation": "x"}, "client-authentication-double"),
        (
            {"client_assertion": ..., "client_assertion_type": ..., "client_secret": "s"},
            {},
            "client-authentication-unsupported",
        ),
        (
            {"client_assertion": ..., "client_assertion_type": ...},
            {"Authorization": "Basic YTpi"},
            "client-authentication-unsupported",
        ),
        ({"client_assertion_type": ...}, {}, "client-authentication-unsupported"),
        (
            {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
            {},
            "client-authentication-unsupported",
        ),
        ({"client_assertion": ...}, {}, "client-authentication-unsupported"),
        ({"client_assertion": "nonsense"}, {}, "assertion-invalid"),
        ({"client_assertion": "A" * 5000}, {}, "assertion-invalid"),
        ({"grant_type": ...}, {}, "grant-missing"),
        ({"grant_type": "authorization_code"}, {}, "grant-unsupported"),
    ],
)
def test_which_authentication(shared, changes, headers, expected):
    async def scenario(world):
        answer = await world.ask(world.form(**changes), headers={"DPoP": world.proof(), **headers})
        assert code(answer)[2] == expected
        assert (await world.ask()).status_code == 200

    shared(scenario)


def test_the_errors_of_a_missing_and_an_unknown_grant_differ(shared):
    async def scenario(world):
        assert code(await world.ask(world.form(grant_type=...)))[:2] == (400, "invalid_request")
        assert code(await world.ask(world.form(grant_type="password")))[:2] == (400, "unsupported_grant_type")

    shared(scenario)


@pytest.mark.parametrize("name", ["grant_type", "client_assertion", "client_assertion_type", "scope", "unheard_of"])
def test_parameters_given_twice(shared, name):
    async def scenario(world):
        form = {"scope": "mec:app", "unheard_of": "1", **world.form()}
        form[name] = [form[name], form[name]]
        assert code(await world.ask(form)) == (400, "invalid_request", "parameter-repeated")
        assert (await world.ask({"scope": "mec:app", "unheard_of": "1", **world.form()})).status_code == 200

    shared(scenario)


def test_headers_given_twice(shared):
    async def scenario(world):
        twice = [("DPoP", world.proof()), ("DPoP", world.proof())]
        answer = await world.http.post("/oauth2/token", data=world.form(), headers=twice)
        assert code(answer) == (400, "invalid_request", "parameter-repeated")

    shared(scenario)


def test_bodies_that_are_no_form(shared):
    async def scenario(world):
        form = "application/x-www-form-urlencoded"
        for content, kind, expected in (
            (b"{}", "application/json", "request-invalid"),
            (b"a=b=c&&", form, "request-invalid"),
            (b"\xff=a", form, "request-invalid"),
            (b"&".join(b"a%d=1" % i for i in range(40)), form, "request-invalid"),
            (b"a=" + b"b" * 20000, form, "body-too-large"),
        ):
            answer = await world.http.post("/oauth2/token", content=content, headers={"Content-Type": kind})
            assert code(answer)[2] == expected, content[:20]

    shared(scenario)


def test_a_bucket_is_refilled_and_is_one_clients_own():
    now = [datetime(2026, 11, 22, tzinfo=UTC)]
    buckets = Buckets(1.0, what="client", clock=lambda: now[0])
    for _ in range(4):
        buckets.take("app")
    with pytest.raises(TooManyRequests) as caught:
        buckets.take("app")
    assert (caught.value.code, caught.value.retry_after) == ("too-many-requests", 1)
    buckets.take("another")
    now[0] += timedelta(seconds=1)
    buckets.take("app")


@pytest.mark.parametrize("name", ["address", "client"])
def test_who_asks_too_often_is_told_when_to_come_back(tmp_path, opened, name):
    async def scenario():
        async with opened(tmp_path / "identity", **{f"requests_per_second_{name}": 1.0}) as world:
            assert [(await world.ask()).status_code for _ in range(4)] == [200] * 4
            answer = await world.ask()
            assert code(answer) == (429, "temporarily_unavailable", "too-many-requests")
            assert answer.headers["retry-after"] == "1"
            other = await world.ask(client="plain")
            assert other.status_code == (429 if name == "address" else 200)
            world.later(seconds=1)
            assert (await world.ask()).status_code == 200

    asyncio.run(scenario())


def test_keys_are_checked_at_registration(shared):
    async def scenario(world):
        key = world.keys["builder"]
        path = "/identity/v1/clients"
        good = {"client_id": "new", "kind": "builder", "jwks": {"keys": [public_jwk(key)]}}
        for jwks in (
            {"keys": []},
            {"keys": [private_jwk(key)]},
            {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
            {"keys": [{"kty": "RSA", "n": "w" * 171, "e": "AQAB"}]},
            {"keys": [{**public_jwk(key), "crv": "P-384"}]},
            {},
        ):
            answer = await world.call("operator", "POST", path, json={**good, "jwks": jwks})
            assert (answer.status_code, answer.json()["code"]) == (400, "jwk-invalid")
        answer = await world.call("operator", "POST", path, json=good)
        assert answer.status_code == 201
        assert "d" not in answer.json()["jwks"]["keys"][0]

    shared(scenario)
