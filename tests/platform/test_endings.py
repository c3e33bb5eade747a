"""What has to end does: an instance without its client, an operation that could not be written down, a failed start."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from umec_core.errors import Unavailable
from umec_core.standing import Standing
from umec_core.store import Store
from umec_platform.instances import lifecycle

LCM = "/app_lcm/v1/app_instances"


class Away(Unavailable):
    """The authorization server does not answer."""

    code = "identity-away"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "RETRY_EVERY", 0.1)


async def running(world: Any) -> str:
    await world.furnish()
    await world.onboard()
    return str(await world.instantiate())


async def newest(world: Any, kind: str) -> dict[str, Any]:
    found = (await world.operate("GET", "/app_lcm/v1/app_lcm_op_occs")).json()
    return dict([one for one in found if one["lcmOperation"] == kind][-1])


def ends(world: Any, kind: str, state: str) -> Callable[[], Any]:
    async def holds() -> bool:
        return bool((await newest(world, kind))["operationState"] == state)

    return holds


def test_a_silent_host_keeps_no_client_of_what_is_terminated(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            world.host.silent = True
            assert (await world.operate("POST", f"{LCM}/{instance}/terminate", json={})).status_code == 202
            await wait_until(lambda: world.neighbours.clients == {})

            async def waits() -> bool:
                return "error" in await newest(world, "TERMINATE")

            await wait_until(waits)
            order = await newest(world, "TERMINATE")
            assert (order["operationState"], order["error"]["code"]) == ("PROCESSING", "netd-unreachable")
            assert (await world.operate("GET", "/platform/v1/rules")).json() == []
            assert instance in world.host.instances
            world.host.silent = False
            await wait_until(ends(world, "TERMINATE", "COMPLETED"))
            assert world.host.instances == {}
            assert "error" not in await newest(world, "TERMINATE")

    asyncio.run(scenario())


def test_a_silent_authorization_server_delays_the_end_of_a_client_and_never_forgets_it(
    world: Any, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: str) -> None:
        raise Away("nobody answers")

    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            with monkeypatch.context() as patch:
                patch.setattr(world.neighbours, "remove", away, raising=False)
                await world.operate("POST", f"{LCM}/{instance}/terminate", json={})
                await asyncio.sleep(0.3)
                assert (await newest(world, "TERMINATE"))["operationState"] == "PROCESSING"
            await wait_until(ends(world, "TERMINATE", "COMPLETED"))
            assert world.neighbours.clients == {}
            # The same for a start that failed after its client had been registered.
            world.now += timedelta(seconds=1)
            world.host.refuse["start"] = "layer-digest"
            with monkeypatch.context() as patch:
                patch.setattr(world.neighbours, "remove", away, raising=False)
                await world.operate("POST", f"{LCM}/{instance}/instantiate", json={})
                await wait_until(lambda: world.neighbours.clients != {})
                await asyncio.sleep(0.3)
                assert (await newest(world, "INSTANTIATE"))["operationState"] == "PROCESSING"
            await wait_until(ends(world, "INSTANTIATE", "FAILED"))
            assert (await newest(world, "INSTANTIATE"))["error"]["code"] == "layer-digest"
            assert world.neighbours.clients == {}

    asyncio.run(scenario())


def test_an_operation_whose_end_could_not_be_written_is_run_again(
    world: Any, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            made = await world.operate("POST", f"{LCM}?tenant=harbour", json={"appDId": "hello-1"})
            world.neighbours.gate = asyncio.Event()
            await world.operate("POST", f"{LCM}/{made.json()['id']}/instantiate", json={})
            await wait_until(ends(world, "INSTANTIATE", "PROCESSING"))

            async def full(_self: Store, _work: object) -> None:
                raise OSError("no space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(Store, "write", full)
                world.neighbours.gate.set()
                await asyncio.sleep(0.3)
            await wait_until(ends(world, "INSTANTIATE", "COMPLETED"))
            assert len(world.host.instances) == 1

    asyncio.run(scenario())


def test_a_new_tenants_network_is_not_swept_by_older_rows(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            made = await world.operate("POST", f"{LCM}?tenant=harbour", json={"appDId": "hello-1"})
            world.host.hold["sync"] = asyncio.Event()
            await world.stand("node-a", Standing.DEGRADED, 2)
            await world.stand("node-a", Standing.TRUSTED, 3)
            await wait_until(lambda: "sync" in world.host.held)
            body = {"mecHostInformation": [{"hostId": "host-a"}]}
            await world.operate("POST", f"{LCM}/{made.json()['id']}/instantiate", json=body)
            await asyncio.sleep(0.3)
            assert world.host.networks == set()
            world.host.hold.pop("sync").set()
            await wait_until(ends(world, "INSTANTIATE", "COMPLETED"))
            await asyncio.sleep(0.2)
            assert world.host.networks == {"harbour"}
            assert len(world.host.instances) == 1

    asyncio.run(scenario())


def test_no_operation_under_way_keeps_an_instance_from_its_end(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            # Its host lost it, and starts it again: for ever, as it looks.
            world.neighbours.gate = asyncio.Event()
            world.host.restart()
            await wait_until(lambda: begun(world))
            first = await world.operate("POST", f"{LCM}/{instance}/terminate", json={})
            again = await world.operate("POST", f"{LCM}/{instance}/terminate", json={})
            assert (first.status_code, again.status_code) == (202, 202)
            assert first.headers["Location"] == again.headers["Location"]
            assert (await world.operate("POST", f"{LCM}/{instance}/instantiate", json={})).status_code == 409
            assert (await newest(world, "TERMINATE"))["operationState"] != "COMPLETED"
        # What a crash cuts off comes to the same end, and no step of the start follows it.
        world.neighbours.gate = None
        async with world.open():
            await wait_until(ends(world, "TERMINATE", "COMPLETED"))
            overtaken = await newest(world, "OPERATE")
            assert (overtaken["operationState"], overtaken["error"]["code"]) == ("FAILED", "operation-overtaken")
            assert (world.host.instances, world.neighbours.clients, world.host.starts) == ({}, {}, 1)
            shown = (await world.operate("GET", f"{LCM}/{instance}")).json()
            assert shown["instantiationState"] == "NOT_INSTANTIATED"
            assert (await world.order(instance, "instantiate", {}))["operationState"] == "COMPLETED"

    asyncio.run(scenario())


async def begun(world: Any) -> bool:
    found = (await world.operate("GET", "/app_lcm/v1/app_lcm_op_occs")).json()
    return any((one["lcmOperation"], one["operationState"]) == ("OPERATE", "PROCESSING") for one in found)


def test_a_start_that_cannot_end_delays_the_end_of_its_instance_and_touches_no_later_start(
    world: Any, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: str) -> None:
        raise Away("nobody answers")

    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            made = await world.operate("POST", f"{LCM}?tenant=harbour", json={"appDId": "hello-1"})
            instance = made.json()["id"]
            world.host.refuse["start"] = "layer-digest"
            with monkeypatch.context() as patch:
                patch.setattr(world.neighbours, "remove", away, raising=False)
                await world.operate("POST", f"{LCM}/{instance}/instantiate", json={})
                await wait_until(lambda: world.neighbours.clients != {})
                await world.operate("POST", f"{LCM}/{instance}/terminate", json={})

                async def waits() -> bool:
                    return "error" in await newest(world, "TERMINATE")

                await wait_until(waits)
                order = await newest(world, "TERMINATE")
                assert (order["operationState"], order["error"]["code"]) == ("PROCESSING", "instance-state")
            await wait_until(ends(world, "TERMINATE", "COMPLETED"))
            assert (await newest(world, "INSTANTIATE"))["operationState"] == "FAILED"
            assert world.neighbours.clients == {}
            world.host.refuse.clear()
            assert (await world.order(instance, "instantiate", {}))["operationState"] == "COMPLETED"

    asyncio.run(scenario())


def test_an_unforeseen_error_is_called_what_it_is(
    world: Any, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            with monkeypatch.context() as patch:
                patch.setattr(world.host, "stop_instance", broken, raising=False)
                await world.operate("POST", f"{LCM}/{instance}/terminate", json={})

                async def waits() -> bool:
                    return "error" in await newest(world, "TERMINATE")

                await wait_until(waits)
                assert (await newest(world, "TERMINATE"))["error"]["code"] == "internal-error"
            await wait_until(ends(world, "TERMINATE", "COMPLETED"))
            with monkeypatch.context() as patch:
                patch.setattr(world.neighbours, "pull", broken, raising=False)
                order = await world.order(instance, "instantiate", {})
            assert (order["operationState"], order["error"]["code"]) == ("FAILED", "internal-error")
            assert "secret" not in order["error"]["detail"]
            assert (await world.order(instance, "instantiate", {}))["operationState"] == "COMPLETED"

    asyncio.run(scenario())


def test_a_host_whose_image_does_not_come_holds_up_no_start_on_another(
    world: Any, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(lifecycle, "STARTS_AT_ONCE", 1)
        async with world.open():
            await world.furnish()
            await world.onboard()
            world.host.hold["pull"] = asyncio.Event()
            for _ in range(2):
                made = await world.operate("POST", f"{LCM}?tenant=harbour", json={"appDId": "hello-1"})
                wish = {"mecHostInformation": [{"hostId": "host-a"}]}
                await world.operate("POST", f"{LCM}/{made.json()['id']}/instantiate", json=wish)
            await wait_until(lambda: world.host.held)
            assert await world.instantiate(host="host-b") in world.other_host.instances
            assert (world.host.held, world.host.instances) == (["pull"], {})  # the second of the same host waits
            world.host.hold.pop("pull").set()
            await wait_until(lambda: len(world.host.instances) == 2)

    asyncio.run(scenario())
