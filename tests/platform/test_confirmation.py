"""A rule is taken when its host has taken it as it is now: not by an older look, not in spite of a refusal."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_platform.hosts import fleet, worker
from umec_platform.netd.errors import RemoteRefusal

NAME = "hello.harbour.example"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives up, however slow the machine is, and a host that answers again is asked at once."""
    monkeypatch.setattr(fleet, "PATIENCE", 60.0)
    monkeypatch.setattr(worker, "LONGEST_PAUSE", worker.FIRST_PAUSE)


async def running(world: Any) -> str:
    await world.furnish()
    await world.onboard()
    return str(await world.instantiate())


async def switch(world: Any, instance: str, state: str) -> httpx.Response:
    path = f"/mec_app_support/v1/applications/{instance}/dns_rules/Name"
    rule = (await world.apply(instance, "GET", path)).json()
    answer: httpx.Response = await world.apply(instance, "PUT", path, json={**rule, "state": state})
    return answer


async def written(world: Any, state: str) -> bool:
    rules = (await world.operate("GET", "/platform/v1/rules")).json()
    return any(rule["rule"]["state"] == state for rule in rules if rule["kind"] == "dns")


async def resync(world: Any) -> None:
    """Have host-a looked at as a whole: its node changes, and stands as well as before."""
    generation = world.view.entries["node-a"].generation
    await world.stand("node-a", Standing.DEGRADED, generation + 1)
    await world.stand("node-a", Standing.TRUSTED, generation + 2)


@pytest.mark.parametrize("fault", ["host", "platform", None])
def test_what_a_host_refuses_as_a_whole_is_not_said_to_be_taken(
    world: Any, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            # The host is silent while the rule is switched on, so that it is judged with the whole state.
            world.host.silent = True
            asked = asyncio.create_task(switch(world, instance, "ACTIVE"))
            await wait_until(lambda: written(world, "ACTIVE"))
            await wait_until(lambda: world.host.unanswered)  # now it is only asked again and again what it runs
            if fault == "host":
                world.host.refuse[NAME] = "dns-name-taken"
            if fault == "platform":
                monkeypatch.setattr("umec_platform.hosts.desired.to_netd_dns", refuse)
            world.host.silent = False
            answer = await asked
            if fault is None:
                assert (answer.status_code, len(world.host.dns)) == (200, 1)
            else:
                assert answer.json()["code"] == {"host": "dns-name-taken", "platform": "name-not-of-tenant"}[fault]
                assert (world.host.dns, answer.status_code) == ({}, {"host": 409, "platform": 422}[fault])

    asyncio.run(scenario())


def refuse(*_: object) -> None:
    from umec_platform.errors import NameForeign  # noqa: PLC0415

    raise NameForeign("the name went to another tenant")


def test_a_rule_that_may_not_come_to_a_host_any_more_is_refused_when_its_turn_comes(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            with monkeypatch.context() as patched:
                patched.setattr("umec_platform.hosts.desired.to_netd_dns", refuse)
                answer = await switch(world, instance, "ACTIVE")
            assert (answer.status_code, answer.json()["code"]) == (422, "name-not-of-tenant")
            assert world.host.dns == {}
            assert (await switch(world, instance, "ACTIVE")).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(("version", "code"), [(1, "host-silent"), (2, None), (3, None)])
def test_only_what_came_of_the_change_or_of_a_later_one_counts(version: int, code: str | None) -> None:
    async def scenario() -> None:
        waiter = worker.Waiter()
        waiter.expect(2)
        waiter.tell(version, None)
        await waiter.wait(0.05)

    if code is None:
        asyncio.run(scenario())
        return
    with pytest.raises(UmecError) as refused:
        asyncio.run(scenario())
    assert refused.value.code == code


def test_an_older_look_confirms_nothing(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            world.host.hold["sync"] = asyncio.Event()
            await resync(world)
            await wait_until(lambda: "sync" in world.host.held)
            # The rows have been read for that look; now the rule is switched on, and its host will refuse it.
            world.host.refuse[NAME] = "dns-name-taken"
            asked = asyncio.create_task(switch(world, instance, "ACTIVE"))
            await wait_until(lambda: written(world, "ACTIVE"))
            assert not asked.done()
            world.host.hold.pop("sync").set()
            answer = await asked
            assert (answer.status_code, answer.json()["code"]) == (409, "dns-name-taken")
            world.host.refuse.clear()
            assert (await switch(world, instance, "ACTIVE")).status_code == 200

    asyncio.run(scenario())


def test_a_deactivation_that_failed_at_first_is_confirmed_by_the_whole_state(
    world: Any, wait_until: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with world.open():
            instance = await running(world)
            assert (await switch(world, instance, "ACTIVE")).status_code == 200
            world.host.silent = True
            asked = asyncio.create_task(switch(world, instance, "INACTIVE"))
            await wait_until(lambda: written(world, "INACTIVE"))
            before = world.host.unanswered
            await wait_until(lambda: world.host.unanswered > before)
            assert not asked.done()
            world.host.silent = False
            answer = await asked
            assert (answer.status_code, answer.json()["state"], world.host.dns) == (200, "INACTIVE", {})

    asyncio.run(scenario())


class CrossedHost:
    """A host that has seen up to a statement; `behind` later ones are older to it."""

    def __init__(self, behind: int, code: str = "standing-rollback") -> None:
        self.behind, self.code = behind, code
        self.taken: list[str] = []

    async def standing(self, statement: str) -> dict[str, Any]:
        if self.behind:
            self.behind -= 1
            raise RemoteRefusal(self.code, "refused", "it is older than the newest known one")
        self.taken.append(statement)
        return {}


class Verifier:
    """Says something newer every time that it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def standings(self, *, after: int, wait: float, node: str | None) -> str:
        self.asked += 1
        return f"{node} {after} {wait:g} {self.asked}"


def test_two_relays_that_cross_each_other_end_with_the_newest_statement() -> None:
    for behind, code, taken, refusal in (
        (0, "standing-rollback", ["node-a 0 0 1"], None),
        (1, "standing-rollback", ["node-a 0 0 2"], None),
        (2, "standing-rollback", [], "standing-rollback"),
        (1, "standing-invalid", [], "standing-invalid"),
    ):
        host = CrossedHost(behind, code)
        if refusal is None:
            asyncio.run(worker.relay_standing(Verifier(), host, "node-a"))
        else:
            with pytest.raises(UmecError) as caught:
                asyncio.run(worker.relay_standing(Verifier(), host, "node-a"))
            assert caught.value.code == refusal
        assert host.taken == taken
    asyncio.run(worker.relay_standing(None, CrossedHost(9), "node-a"))
