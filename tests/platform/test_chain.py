"""From the descriptor to the rule, and back when the node falls."""

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from umec_core.audit import verify_export
from umec_core.jose import KeySet, verify_jwt
from umec_core.standing import Standing
from umec_platform.hosts import worker

RULES = "/mec_app_support/v1/applications"
SERVICES = "/mec_service_mgmt/v1/applications"
SERVICE = {
    "serName": "hello",
    "version": "1.0",
    "state": "ACTIVE",
    "serializer": "JSON",
    "transportInfo": {
        "id": "t1",
        "name": "REST",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": "1.1",
        "endpoint": {"uris": ["http://10.64.1.10/"]},
        "security": {
            "oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"], "tokenEndpoint": "https://evil.test/token"}
        },
    },
}


async def activate(world: Any, instance: str) -> None:
    for path in (f"{RULES}/{instance}/traffic_rules/Web", f"{RULES}/{instance}/dns_rules/Name"):
        rule = (await world.apply(instance, "GET", path)).json()
        answer = await world.apply(instance, "PUT", path, json={**rule, "state": "ACTIVE"})
        assert answer.status_code == 200, answer.text


def test_an_application_gets_its_instance_service_rule_and_name(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            instance = await world.instantiate()
            spec = world.host.instances[instance]
            decision = verify_jwt(spec.decision, KeySet([world.platform_key.public_key()]), typ="umec-admission+jwt")
            assert (decision["tenant"], decision["node"], decision["instance"]) == ("harbour", "node-a", instance)
            assert decision["digest"] == spec.digest
            credential = json.loads(base64.b64decode(spec.secrets["client.json"]))
            assert set(credential) == {"issuer", "client_id", "private_jwk", "token_endpoint", "mp1", "ca"}
            client = world.neighbours.clients[instance]
            assert (client.tenant, client.node, "d" in client.jwk) == ("harbour", "node-a", False)
            assert client.jwk["x"] == credential["private_jwk"]["x"]

            assert world.host.traffic == {}
            await activate(world, instance)
            assert [rule.to for rule in world.host.traffic.values()] == ["10.64.1.10"]
            assert [rule.name for rule in world.host.dns.values()] == ["hello.harbour.example"]

            made = await world.apply(instance, "POST", f"{SERVICES}/{instance}/services", json=SERVICE)
            assert made.status_code == 201
            assert made.headers["Location"] == made.json()["_links"]["self"]["href"]
            shown = made.json()
            security = shown["transportInfo"]["security"]["oAuth2Info"]
            assert security["tokenEndpoint"] == "https://authority.test:8443/oauth2/token"
            assert (shown["scopeOfLocality"], shown["consumedLocalOnly"], shown["isLocal"]) == ("MEC_HOST", True, True)
            found = await world.apply(instance, "GET", "/mec_service_mgmt/v1/services?ser_name=hello")
            assert [item["serInstanceId"] for item in found.json()] == [shown["serInstanceId"]]

            ended = await world.order(instance, "terminate", {"terminationType": "FORCEFUL"})
            assert ended["operationState"] == "COMPLETED"
            assert (world.host.instances, world.neighbours.clients) == ({}, {})
            assert (await world.operate("GET", "/platform/v1/services")).json() == []
            assert (await world.operate("GET", "/platform/v1/rules")).json() == []

    asyncio.run(scenario())


def test_when_a_node_falls_its_services_and_rules_fall_and_the_other_node_serves_on(
    world: Any, wait_until: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard("harbour")
            await world.onboard("transit")
            mine = await world.instantiate("harbour", "host-a")
            theirs = await world.instantiate("transit", "host-b")
            await activate(world, mine)
            made = await world.apply(mine, "POST", f"{SERVICES}/{mine}/services", json=SERVICE)
            assert made.status_code == 201
            other = {"tenant": "transit", "node": "node-b"}
            for path in (f"{RULES}/{theirs}/dns_rules/Name",):
                rule = (await world.apply(theirs, "GET", path, **other)).json()
                answer = await world.apply(theirs, "PUT", path, json={**rule, "state": "ACTIVE"}, **other)
                assert answer.status_code == 200, answer.text

            await world.stand("node-a", Standing.UNTRUSTED, 2)
            await wait_until(lambda: not world.host.traffic and not world.host.dns)
            assert [rule.name for rule in world.other_host.dns.values()] == ["hello.transit.example"]
            shown = (await world.operate("GET", "/platform/v1/services?tenant=harbour")).json()
            assert [item["state"] for item in shown] == ["SUSPENDED"]
            refused = await world.apply(mine, "GET", f"{RULES}/{mine}/dns_rules")
            assert refused.json()["code"] == "standing-fallen"

            await world.stand("node-a", Standing.TRUSTED, 3)
            await wait_until(lambda: world.host.traffic and world.host.dns)
            shown = (await world.operate("GET", "/platform/v1/services?tenant=harbour")).json()
            assert [item["state"] for item in shown] == ["ACTIVE"]
            await wait_until(lambda: "statement.about.node-a" in world.host.statements)

    asyncio.run(scenario())


def test_what_was_decided_before_a_crash_happens_after_it(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            instance = await world.instantiate()
            await activate(world, instance)
        async with world.open(working=False):  # the process dies between the decision and its effect
            await world.stand("node-a", Standing.QUARANTINED, 2)
            assert world.host.traffic
        world.host.syncs = 0
        async with world.open():
            await wait_until(lambda: world.host.syncs > 0 and not world.host.traffic and not world.host.dns)

    asyncio.run(scenario())


def test_an_operation_that_a_crash_cut_off_is_run_again(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            world.neighbours.gate = asyncio.Event()
            made = await world.operate("POST", "/app_lcm/v1/app_instances?tenant=harbour", json={"appDId": "hello-1"})
            instance = made.json()["id"]
            answer = await world.operate("POST", f"/app_lcm/v1/app_instances/{instance}/instantiate", json={})
            where = answer.headers["Location"].removeprefix("https://authority.test:8443")

            async def begun() -> bool:
                return bool((await world.operate("GET", where)).json()["operationState"] == "PROCESSING")

            await wait_until(begun)
        assert world.host.instances == {}
        world.neighbours.gate = None
        async with world.open():

            async def done() -> bool:
                return bool((await world.operate("GET", where)).json()["operationState"] == "COMPLETED")

            await wait_until(done)
            assert list(world.host.instances) == [instance]

    asyncio.run(scenario())


def test_a_silent_host_delays_its_rules_only_and_nobody_says_that_they_are_taken(
    world: Any, wait_until: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            instance = await world.instantiate()
            path = f"{RULES}/{instance}/dns_rules/Name"
            rule = (await world.apply(instance, "GET", path)).json()
            world.host.silent = True
            # Nobody has judged the rule, so nobody says that it is taken: with the patience that is shipped.
            answer = await world.apply(instance, "PUT", path, json={**rule, "state": "ACTIVE"})
            assert (answer.status_code, answer.json()["code"]) == (503, "host-silent")
            assert int(answer.headers["Retry-After"]) >= worker.LONGEST_PAUSE
            assert not world.host.dns
            world.host.silent = False
            await wait_until(lambda: world.host.dns)  # the wish was kept
            version = (await world.apply(instance, "GET", path)).headers["ETag"]
            answer = await world.apply(instance, "PUT", path, json={**rule, "state": "ACTIVE"})
            assert (answer.status_code, answer.json()["state"]) == (200, "ACTIVE")
            assert answer.headers["ETag"] == version

    asyncio.run(scenario())


def test_a_rule_that_its_host_refuses_is_said_to_be_inactive(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            instance = await world.instantiate()
            path = f"{RULES}/{instance}/dns_rules/Name"
            rule = (await world.apply(instance, "GET", path)).json()
            world.host.refuse["hello.harbour.example"] = "dns-name-taken"
            answer = await world.apply(instance, "PUT", path, json={**rule, "state": "ACTIVE"})
            assert (answer.status_code, answer.json()["code"]) == (409, "dns-name-taken")
            assert (await world.apply(instance, "GET", path)).json()["state"] == "INACTIVE"
            world.host.refuse.clear()
            answer = await world.apply(instance, "PUT", path, json={**rule, "state": "ACTIVE"})
            assert (answer.status_code, answer.json()["state"]) == (200, "ACTIVE")

    asyncio.run(scenario())


@pytest.mark.parametrize(("fault", "code"), [("admission", "image-unsigned"), ("start", "layer-digest")])
def test_a_refused_start_leaves_nothing_behind(world: Any, fault: str, code: str) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            made = await world.operate("POST", "/app_lcm/v1/app_instances?tenant=harbour", json={"appDId": "hello-1"})
            instance = made.json()["id"]
            world.neighbours.refused = fault == "admission"
            world.host.refuse = {"start": "layer-digest"} if fault == "start" else {}
            ended = await world.order(instance, "instantiate", {})
            assert (ended["operationState"], ended["error"]["code"]) == ("FAILED", code)
            assert (world.host.instances, world.neighbours.clients) == ({}, {})
            shown = (await world.operate("GET", f"/app_lcm/v1/app_instances/{instance}")).json()
            assert shown["instantiationState"] == "NOT_INSTANTIATED"

            world.neighbours.refused = False
            world.host.refuse = {}
            again = await world.order(instance, "instantiate", {})
            assert again["operationState"] == "COMPLETED"

    asyncio.run(scenario())


def test_an_image_that_is_refused_while_it_is_pulled_does_not_start(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            pull = world.neighbours.pull

            async def pull_while_it_is_denied(repository: str, digest: str) -> Path:
                world.neighbours.refused = True
                return await pull(repository, digest)

            world.neighbours.pull = pull_while_it_is_denied
            made = await world.operate("POST", "/app_lcm/v1/app_instances?tenant=harbour", json={"appDId": "hello-1"})
            instance = made.json()["id"]
            ended = await world.order(instance, "instantiate", {})
            assert (ended["operationState"], ended["error"]["code"]) == ("FAILED", "image-unsigned")
            assert len(world.neighbours.pulled) == 1
            assert (world.host.instances, world.neighbours.clients) == ({}, {})
            world.neighbours.pull, world.neighbours.refused = pull, False
            assert (await world.order(instance, "instantiate", {}))["operationState"] == "COMPLETED"

    asyncio.run(scenario())


@pytest.mark.parametrize("standing", [Standing.DEGRADED, Standing.LAPSED, Standing.UNTRUSTED, Standing.PENDING])
def test_only_a_trusted_node_gets_new_instances(world: Any, standing: Standing) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            await world.stand("node-a", standing, 2)
            made = await world.operate("POST", "/app_lcm/v1/app_instances?tenant=harbour", json={"appDId": "hello-1"})
            path = f"/app_lcm/v1/app_instances/{made.json()['id']}/instantiate"
            body = {"mecHostInformation": [{"hostId": "host-a"}]}
            refused = await world.operate("POST", path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, "host-not-trusted")
            await world.stand("node-a", Standing.TRUSTED, 3)
            assert (await world.operate("POST", path, json=body)).status_code == 202

    asyncio.run(scenario())


def test_a_platform_that_hears_nothing_of_its_nodes_starts_nothing(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            made = await world.operate("POST", "/app_lcm/v1/app_instances?tenant=harbour", json={"appDId": "hello-1"})
            world.now += timedelta(seconds=11)
            ended = await world.order(made.json()["id"], "instantiate", {})
            assert ended["error"]["code"] == "standing-stale"

    asyncio.run(scenario())


def test_the_audit_log_holds_every_decision(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            instance = await world.instantiate()
            await activate(world, instance)
            export = (await world.operate("GET", "/platform/v1/audit")).json()
            verify_export(export, world.audit_key.public_key())
            actions = {entry["action"] for entry in export["entries"]}
            assert {"tenant.create", "host.standing", "package.onboard", "instance.started", "rule.activate"} <= actions

    asyncio.run(scenario())


def test_a_service_without_heartbeats_is_suspended_until_it_is_heard(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            instance = await world.instantiate()
            path = f"{SERVICES}/{instance}/services"
            made = (await world.apply(instance, "POST", path, json={**SERVICE, "livenessInterval": 10})).json()
            assert made["livenessInterval"] == 10
            liveness = made["_links"]["liveness"]["href"].removeprefix("https://authority.test:8444")
            world.now += timedelta(seconds=31)
            await world.stand("node-b", Standing.TRUSTED, 2)
            here = f"{path}/{made['serInstanceId']}"
            assert (await world.apply(instance, "GET", here)).json()["state"] == "SUSPENDED"
            beat = await world.apply(instance, "PATCH", liveness, json={"state": "ACTIVE"})
            assert beat.status_code == 204
            assert (await world.apply(instance, "GET", here)).json()["state"] == "ACTIVE"

    asyncio.run(scenario())
