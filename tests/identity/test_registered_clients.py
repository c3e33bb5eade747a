"""/identity/v1/clients as an auth matrix, and what registration refuses."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from umec_core.errors import UmecError
from umec_core.jose import public_jwk
from umec_identity.service import operator_seed

ISSUER = "https://authority.test:8443"
PATH = "/identity/v1/clients"
INSTANCES = "identity:instances"


def new(world, **changes):
    good = {
        "client_id": "cam-1",
        "kind": "application",
        "tenant": "transit",
        "node": "lamp-7",
        "instance": "cam-1",
        "jwks": {"keys": [public_jwk(world.keys["app"])]},
        "scopes": ["mec:app"],
        "resources": ["https://authority.test:8444/"],
        "binding": "dpop",
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def test_who_may_register(play):
    async def scenario(world):
        anonymous = await world.http.post(PATH, json=new(world))
        assert (anonymous.status_code, anonymous.json()["code"]) == (401, "token-missing")
        assert "resource_metadata=" in anonymous.headers["www-authenticate"]
        wrong = await world.token("operator", resource=f"{ISSUER}/attest/v1", scope="attest:admin")
        answer = await world.http.post(
            PATH, json=new(world), headers=world.authorization("operator", wrong, "POST", PATH)
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "token-audience")
        asked = await world.ask(
            world.form("builder", resource=f"{ISSUER}/identity/v1", scope="identity:clients"), client="builder"
        )
        assert asked.json()["code"] == "scope-invalid"
        asked = await world.ask(
            world.form("umec-platform", resource=f"{ISSUER}/identity/v1", scope="identity:clients"),
            client="umec-platform",
        )
        assert asked.json()["code"] == "scope-invalid"
        for who, scope in (("operator", "identity:clients"), ("umec-platform", INSTANCES)):
            answer = await world.call(who, "POST", PATH, scope=scope, json=new(world, client_id=f"by-{who}"))
            assert answer.status_code == 201, answer.text

    play(scenario)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "operator"},
        {"kind": "service"},
        {"kind": "builder"},
        {"node": ...},
        {"instance": ...},
        {"scopes": ["mec:app", "images:pull"]},
        {"scopes": ["platform:admin"]},
        {"resources": []},
        {"resources": ["https://authority.test:8444/", f"{ISSUER}/platform/v1"]},
        {"resources": ["https://authority.test:5443/"]},
        {"binding": "bearer"},
        {"binding": "mtls"},
    ],
)
def test_the_platform_registers_instances_only(shared, changes):
    async def scenario(world):
        wanted = new(world, client_id="inst-1", **changes)
        answer = await world.call("umec-platform", "POST", PATH, scope=INSTANCES, json=wanted)
        assert (answer.status_code, answer.json()["code"]) == (403, "registration-denied")
        good = new(world, client_id="inst-1")
        answer = await world.call("umec-platform", "POST", PATH, scope=INSTANCES, json=good)
        assert answer.status_code == 201, answer.text

    shared(scenario)


def test_the_platform_removes_instances_only(play):
    async def scenario(world):
        for client in ("operator", "umec-platform", "builder", "app", "plain", "housed"):
            answer = await world.call("umec-platform", "DELETE", f"{PATH}/{client}", scope=INSTANCES)
            assert (answer.status_code, answer.json()["code"]) == (403, "registration-denied")
            assert (await world.call("operator", "GET", f"{PATH}/{client}")).status_code == 200
        answer = await world.call("umec-platform", "DELETE", f"{PATH}/nobody", scope=INSTANCES)
        assert (answer.status_code, answer.json()["code"]) == (404, "client-unknown")
        await world.call("umec-platform", "POST", PATH, scope=INSTANCES, json=new(world))
        answer = await world.call("umec-platform", "DELETE", f"{PATH}/cam-1", scope=INSTANCES)
        assert answer.status_code == 204

    play(scenario)


@pytest.mark.parametrize("path", [PATH, f"{PATH}/operator", "/identity/v1/audit"])
def test_the_platform_reads_neither_clients_nor_the_audit_log(shared, path):
    async def scenario(world):
        answer = await world.call("umec-platform", "GET", path, scope=INSTANCES)
        assert (answer.status_code, answer.json()["code"]) == (403, "token-scope")
        assert (await world.call("operator", "GET", path)).status_code == 200

    shared(scenario)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_id": "Cam 1"}, "invalid-input"),
        ({"client_id": ...}, "invalid-input"),
        ({"kind": "node"}, "invalid-input"),
        ({"binding": "none"}, "invalid-input"),
        ({"unknown": 1}, "invalid-input"),
        ({"tenant": ...}, "registration-invalid"),
        ({"scopes": ["mec:everything"]}, "registration-invalid"),
        ({"resources": ["https://elsewhere.test/"]}, "registration-invalid"),
        ({"kind": "service", "binding": "bearer"}, "registration-invalid"),
        ({"jwks": {"keys": [{"kty": "EC"}]}}, "jwk-invalid"),
    ],
)
def test_what_is_not_registered(shared, changes, code):
    async def scenario(world):
        answer = await world.call("operator", "POST", PATH, json=new(world, **changes))
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        assert (await world.call("operator", "POST", PATH, json=new(world))).status_code == 201

    shared(scenario)


def test_registration_is_idempotent_and_conflicts_are_told(play):
    async def scenario(world):
        for _ in range(2):
            assert (await world.call("operator", "POST", PATH, json=new(world))).status_code == 201
        answer = await world.call("operator", "POST", PATH, json=new(world, scopes=["mec:dns"]))
        assert (answer.status_code, answer.json()["code"]) == (409, "client-exists")
        listed = (await world.call("operator", "GET", PATH)).json()["clients"]
        assert [client["client_id"] for client in listed].count("cam-1") == 1

    play(scenario)


def test_a_removed_client_is_gone_at_once_with_its_live_tokens(play):
    async def scenario(world):
        world.keys["cam-1"] = world.keys["app"]
        await world.call("operator", "POST", PATH, json=new(world))
        token = await world.token("cam-1")
        api = world.api("https://authority.test:8444/")
        await api.verify(world.presented(token))
        assert (await world.call("operator", "DELETE", f"{PATH}/cam-1")).status_code == 204
        with pytest.raises(UmecError) as caught:
            await api.verify(world.presented(token))
        assert caught.value.code == "token-revoked"
        assert (await world.ask(client="cam-1")).json()["code"] == "client-invalid"
        answer = await world.call("operator", "GET", f"{PATH}/cam-1")
        assert (answer.status_code, answer.json()["code"]) == (404, "client-unknown")
        answer = await world.call("operator", "DELETE", f"{PATH}/cam-1")
        assert (answer.status_code, answer.json()["code"]) == (404, "client-unknown")

    play(scenario)


def test_a_client_that_is_registered_again_has_tokens_at_once_and_its_old_ones_stay_refused(play):
    async def scenario(world):
        api = world.api("https://authority.test:8444/")
        old = []
        for _ in range(3):
            world.keys["cam-1"] = generate_private_key(SECP256R1())
            wanted = new(world, jwks={"keys": [public_jwk(world.keys["cam-1"])]})
            assert (await world.call("operator", "POST", PATH, json=wanted)).status_code == 201
            token = await world.token("cam-1")
            await api.verify(world.presented(token, "cam-1"))
            for key, before in old:
                world.keys["before"] = key
                with pytest.raises(UmecError) as caught:
                    await api.verify(world.presented(before, "before"))
                assert caught.value.code == "token-revoked"
            old.append((world.keys["cam-1"], token))
            assert (await world.call("operator", "DELETE", f"{PATH}/cam-1")).status_code == 204
        await world.close()
        await world.open()
        api = world.api("https://authority.test:8444/")
        with pytest.raises(UmecError) as caught:
            await api.verify(world.presented(token, "cam-1"))
        assert caught.value.code == "token-revoked"

    play(scenario)


def test_seeds_are_the_same_after_a_restart_and_follow_a_new_key(play):
    async def scenario(world):
        await world.service.clients.seed([operator_seed(world.keys["operator"].public_key())])
        token = await world.token("operator", resource=f"{ISSUER}/attest/v1")
        await world.close()
        await world.open()
        assert await world.api(f"{ISSUER}/attest/v1").verify(
            world.presented(token, "operator", url=f"{ISSUER}/attest/v1/nodes")
        )
        await world.service.clients.seed([operator_seed(world.keys["app"].public_key())])
        assert (await world.ask(client="operator")).json()["code"] == "client-invalid"
        entries = (await world.service.export_audit())["entries"]
        registered = [entry["subject"] for entry in entries if entry["action"] == "client.register"]
        assert registered.count("operator") == 2

    play(scenario)


def test_many_clients_at_once(play):
    async def scenario(world):
        answers = await asyncio.gather(*(world.ask() for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        form = world.form()
        answers = await asyncio.gather(*(world.ask(form) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7

    play(scenario)
