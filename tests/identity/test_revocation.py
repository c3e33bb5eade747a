"""Revocation (RFC 7009) and introspection (RFC 7662): who may, and what a doubtful token is worth."""

import pytest

from umec_core.errors import UmecError
from umec_core.standing import Standing

ISSUER = "https://authority.test:8443"
MP1 = "https://authority.test:8444/"


def asked(world, client, token):
    form = world.form(client, grant_type=..., token=token)
    return {name: value for name, value in form.items() if value is not ...}


async def introspect(world, token, client="operator"):
    return await world.http.post("/oauth2/introspect", data=asked(world, client, token))


def test_who_may_introspect(play):
    async def scenario(world):
        token = await world.token()
        for client in ("app", "builder"):
            answer = await introspect(world, token, client)
            assert (answer.status_code, answer.json()["code"]) == (400, "caller-denied")
        answer = await world.http.post("/oauth2/introspect", data={"token": token})
        assert (answer.status_code, answer.json()["code"]) == (401, "client-authentication-missing")
        answer = await world.http.post("/oauth2/introspect", data=asked(world, "operator", ...))
        assert (answer.status_code, answer.json()["code"]) == (400, "request-invalid")
        form = asked(world, "umec-platform", token)
        body = (await world.http.post("/oauth2/introspect", data=form)).json()
        assert body["active"] is True
        assert {"jti", "cnf", "exp", "scope", "client_id", "aud", "iss"} <= body.keys()
        answer = await world.http.post("/oauth2/introspect", data=form)
        assert (answer.status_code, answer.json()["code"]) == (401, "assertion-replayed")

    play(scenario)


def test_doubtful_tokens_are_inactive(play):
    async def scenario(world):
        token, housed = await world.token(), await world.token("housed")
        stranger = world.assertion("app")
        for text in ("nonsense", token[:-6] + "AAAAAA", stranger):
            assert (await introspect(world, text)).json() == {"active": False}
        assert (await introspect(world, housed)).json()["generation"] == 3
        world.stand("lamp-7", Standing.UNTRUSTED, 4)
        assert (await introspect(world, housed)).json() == {"active": False}
        assert (await introspect(world, token)).json()["active"] is True
        world.later(seconds=300)
        assert (await introspect(world, token)).json() == {"active": False}

    play(scenario)


def test_revocation(play):
    async def scenario(world):
        token, other = await world.token(), await world.token()
        answer = await world.http.post("/oauth2/revoke", data=asked(world, "builder", token))
        assert (answer.status_code, answer.json()["code"]) == (400, "caller-denied")
        api = world.api(MP1)
        await api.verify(world.presented(token))
        assert (await world.http.post("/oauth2/revoke", data=asked(world, "app", token))).status_code == 200
        with pytest.raises(UmecError) as caught:
            await api.verify(world.presented(token))
        assert caught.value.code == "token-revoked"
        assert (await introspect(world, token)).json() == {"active": False}
        await api.verify(world.presented(other))
        for text in (token, "nonsense"):
            assert (await world.http.post("/oauth2/revoke", data=asked(world, "app", text))).status_code == 200
        assert (await world.http.post("/oauth2/revoke", data=asked(world, "operator", other))).status_code == 200
        assert (await introspect(world, other)).json() == {"active": False}

    play(scenario)


def test_the_deny_list_survives_a_restart_and_ends_with_the_token(play):
    async def scenario(world):
        token = await world.token()
        await world.http.post("/oauth2/revoke", data=asked(world, "app", token))
        await world.close()
        await world.open()
        assert (await introspect(world, token)).json() == {"active": False}
        assert len(world.service.revocation._tokens) == 1
        world.later(seconds=301)
        await world.service.tend()
        assert not world.service.revocation._tokens

    play(scenario)
