"""What should run and does not is started again: by the same checks as at first, ever more seldom, and never twice."""

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_core.standing import Standing
from umec_platform.hosts import worker
from umec_platform.instances.recovery import LONGEST_PAUSE, pause_before

MANAGEMENT = "https://authority.test:8443"
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
        "security": {},
    },
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOOK_EVERY", 0.02)


async def deployed(world: Any) -> str:
    """An instance that runs, registered its service and switched its rules on."""
    await world.furnish()
    await world.onboard()
    instance = str(await world.instantiate())
    await register(world, instance)
    return instance


async def register(world: Any, instance: str) -> None:
    path = f"/mec_service_mgmt/v1/applications/{instance}/services"
    assert (await world.apply(instance, "POST", path, json=SERVICE)).status_code == 201
    for rule in ("traffic_rules/Web", "dns_rules/Name"):
        path = f"/mec_app_support/v1/applications/{instance}/{rule}"
        document = (await world.apply(instance, "GET", path)).json()
        assert (await world.apply(instance, "PUT", path, json={**document, "state": "ACTIVE"})).status_code == 200


async def shown(world: Any, instance: str) -> dict[str, Any]:
    found: dict[str, Any] = (await world.operate("GET", f"/app_lcm/v1/app_instances/{instance}")).json()
    return found


async def services(world: Any) -> list[str]:
    return [one["state"] for one in (await world.operate("GET", "/platform/v1/services")).json()]


async def restarts(world: Any) -> list[dict[str, Any]]:
    found = (await world.operate("GET", "/app_lcm/v1/app_lcm_op_occs")).json()
    return [one for one in found if one["lcmOperation"] == "OPERATE"]


def is_stopped(world: Any, instance: str, code: str) -> Callable[[], Any]:
    async def holds() -> bool:
        return (await shown(world, instance)).get("stopped", {}).get("code") == code

    return holds


def is_started(world: Any, instance: str) -> Callable[[], Any]:
    async def holds() -> bool:
        return (await shown(world, instance)).get("instantiatedAppState") == {"operationalState": "STARTED"}

    return holds


async def wait_a(world: Any, pause: timedelta) -> None:
    """Let time pass, on nodes that the verifier keeps speaking of."""
    world.now += pause
    await world.stand("node-b", Standing.TRUSTED, 1)
    await world.looked()


def test_an_image_that_is_no_longer_admitted_stays_down(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await deployed(world)
            world.neighbours.refused = True
            world.host.restart()
            await wait_until(is_stopped(world, instance, "image-unsigned"))
            found = await shown(world, instance)
            assert found["instantiatedAppState"] == {"operationalState": "STOPPED"}
            assert (found["stopped"]["detail"], "address" in found) == ("nobody signed the image", False)
            assert await services(world) == ["SUSPENDED"]
            assert (world.host.instances, world.host.traffic, world.host.dns) == ({}, {}, {})
            assert world.neighbours.clients == {}
            # The standing of its node gives back nothing that does not run.
            await world.stand("node-a", Standing.DEGRADED, 2)
            await world.stand("node-a", Standing.TRUSTED, 3)
            assert await services(world) == ["SUSPENDED"]
            assert len(await restarts(world)) == 1
            await wait_a(world, timedelta(seconds=4))
            assert len(await restarts(world)) == 1
            await wait_a(world, timedelta(seconds=1))
            await wait_until(is_stopped(world, instance, "image-unsigned"))
            assert [one["operationParams"]["attempt"] for one in await restarts(world)] == [1, 2]
            # Admitted again, it comes back.
            world.neighbours.refused = False
            await wait_a(world, timedelta(seconds=10))
            await wait_until(lambda: instance in world.host.instances)
            audit = (await world.operate("GET", "/platform/v1/audit")).json()["entries"]
            refused = [one for one in audit if one["action"] == "instance.operate" and one["outcome"] == "refused"]
            assert {one["code"] for one in refused} == {"image-unsigned"}
            assert "instance.down" in {one["action"] for one in audit}

    asyncio.run(scenario())


@pytest.mark.parametrize("standing", [Standing.DEGRADED, Standing.LAPSED, Standing.UNTRUSTED, Standing.QUARANTINED])
def test_a_node_that_is_not_trusted_starts_nothing_again(
    world: Any, wait_until: Callable[..., Any], standing: Standing
) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await deployed(world)
            await world.stand("node-a", standing, 2)
            world.host.restart()
            await wait_until(is_stopped(world, instance, "host-not-trusted"))
            await world.looked()
            assert (world.host.starts, await restarts(world)) == (1, [])
            assert await services(world) == ["SUSPENDED"]
            await world.stand("node-a", Standing.TRUSTED, 3)
            await wait_until(lambda: world.host.starts == 2)

    asyncio.run(scenario())


def test_after_a_restart_of_its_host_an_instance_comes_back_with_a_new_key(
    world: Any, wait_until: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await deployed(world)
            before = world.host.instances[instance]
            world.host.restart()
            await wait_until(lambda: world.host.starts == 2)
            await wait_until(is_started(world, instance))
            after = world.host.instances[instance]
            keys = [
                json.loads(base64.b64decode(spec.secrets["client.json"]))["private_jwk"]["x"]
                for spec in (before, after)
            ]
            assert keys[0] != keys[1] == world.neighbours.clients[instance].jwk["x"]
            assert len(world.neighbours.pulled) == 2
            # The program begins anew: it says again what it offers, and which rules it wants.
            assert await services(world) == []
            assert world.host.traffic == {}
            await register(world, instance)
            assert (await services(world), len(world.host.traffic), len(world.host.dns)) == (["ACTIVE"], 1, 1)
            await world.looked()
            assert world.host.starts == 2

    asyncio.run(scenario())


def test_a_program_that_always_ends_is_started_ever_more_seldom(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await deployed(world)
            world.host.instances.clear()
            await wait_until(lambda: world.host.starts == 2)
            for starts, pause in ((2, 5), (3, 10), (4, 20)):
                await wait_until(is_started(world, instance))
                world.host.instances.clear()
                await wait_until(is_stopped(world, instance, "instance-ended"))
                await wait_a(world, timedelta(seconds=pause - 1))
                assert world.host.starts == starts
                await wait_a(world, timedelta(seconds=1))
                await wait_until(lambda wanted=starts + 1: world.host.starts == wanted)
            # One that has run for long begins anew.
            await wait_until(is_started(world, instance))
            await wait_a(world, LONGEST_PAUSE)
            world.host.instances.clear()
            await wait_until(lambda: world.host.starts == 6)

    asyncio.run(scenario())


def test_a_restart_that_a_crash_cut_off_is_run_once_more_and_once_only(
    world: Any, wait_until: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with world.open():
            await deployed(world)
            world.neighbours.gate = asyncio.Event()
            world.host.restart()

            async def begun() -> bool:
                return [one["operationState"] for one in await restarts(world)] == ["PROCESSING"]

            await wait_until(begun)
        assert world.host.starts == 1
        world.neighbours.gate = None
        async with world.open():

            async def completed() -> bool:
                return [one["operationState"] for one in await restarts(world)] == ["COMPLETED"]

            await wait_until(completed)
            await world.looked()
            assert world.host.starts == 2
            assert await completed()

    asyncio.run(scenario())


def test_what_is_terminated_is_not_started_again(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await deployed(world)
            world.neighbours.refused = True
            world.host.restart()
            await wait_until(is_stopped(world, instance, "image-unsigned"))
            ended = await world.order(instance, "terminate", {"terminationType": "FORCEFUL"})
            assert ended["operationState"] == "COMPLETED"
            world.neighbours.refused = False
            await wait_a(world, timedelta(seconds=60))
            assert (world.host.starts, await services(world)) == (1, [])

    asyncio.run(scenario())


def test_only_its_tenant_and_the_operator_read_what_an_instance_wrote(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await deployed(world)
            path = f"/platform/v1/instances/{instance}/log"

            async def ask(tenant: str, query: str = "") -> Any:
                token = world.token(f"{MANAGEMENT}/platform/v1", "platform:tenant", tenant=tenant)
                return await world.call("GET", f"{MANAGEMENT}{path}{query}", token)

            refused = await ask("transit")
            assert (refused.status_code, refused.json()["code"]) == (404, "instance-unknown")
            for query in ("?lines=0", "?lines=1001", "?lines=x"):
                assert (await ask("harbour", query)).status_code == 400
            assert (await ask("harbour", "?lines=2")).json() == {"instance": instance, "text": "hello\nhello\n"}
            assert (await world.operate("GET", path)).status_code == 200
            await world.order(instance, "terminate", {"terminationType": "FORCEFUL"})
            assert (await world.operate("GET", path)).json()["code"] == "instance-state"

    asyncio.run(scenario())


@given(st.integers(min_value=-(10**6), max_value=10**6))
def test_pauses_grow_and_stay_bounded(attempt: int) -> None:
    assert timedelta(0) <= pause_before(attempt) <= pause_before(attempt + 1) <= LONGEST_PAUSE
