"""Open boxes: a boot that nobody announced degrades the node until an operator has looked."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.resets import ResetWatch
from umec_attest.service.tables import NodeRow
from umec_attest.testing.image import Tamper

Run = Callable[..., None]


async def open_box(world: Any, booted: Any, node_class: str = "open-box") -> None:
    """Enrol a node of that class and let it be judged once."""
    await world.enrol(booted.node, ticket=await world.ticket(booted.node, **{"class": node_class}))
    await world.reference()
    assert (await world.round(booted))["standing"] == "trusted"


async def judged(world: Any, booted: Any) -> tuple[str, list[str]]:
    """Do a round as the agent does, and return standing and findings."""
    answer = await world.http.post("/attest/v1/evidence", json=booted.evidence(await world.challenge()))
    said = answer.json()
    if said.get("code") == "boot-log-required":
        said = await world.round(booted)
    return said["standing"], [finding["id"] for finding in said["findings"]]


async def decide(world: Any, decision: str, body: Any = None, *, status: int = 200) -> Any:
    return await world.post(f"nodes/node-1/{decision}", body or {}, headers=world.admin, status=status)


def test_an_unannounced_reset_degrades_until_an_operator_clears_it(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            assert (await decide(world, "clear-reset", status=409))["code"] == "reset-not-pending"
            await asyncio.to_thread(booted.reboot)
            expected = ("degraded", ["rebooted", "reset-unannounced"])
            assert await judged(world, booted) == expected
            assert await judged(world, booted) == ("degraded", ["reset-unannounced"])
            shown = await world.get("nodes/node-1/explain")
            assert (shown["class"], shown["reset_unannounced"]) == ("open-box", True)
            assert shown["last_round"]["policies"] == ["degrade-on-warnings"]
            after = await decide(world, "clear-reset", {"reason": "looked at it"})
            assert (after["standing"], after["reset_unannounced"]) == ("degraded", False)
            assert await judged(world, booted) == ("trusted", [])
            assert ("node.clear-reset", "done", None) in await world.audited()

    run(body)


def test_a_standard_node_boots_as_it_likes(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted, "standard")
            await asyncio.to_thread(booted.reboot)
            assert await judged(world, booted) == ("trusted", ["rebooted"])
            for decision in ("announce-reboot", "clear-reset"):
                assert (await decide(world, decision, status=409))["code"] == "node-class-other"

    run(body)


def test_an_announced_reboot_is_good_once_and_in_time(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            shown = await decide(world, "announce-reboot", {"seconds": 60, "reason": "update"})
            assert shown["reboot_announced_until"] == "2034-11-22T12:01:00.000000Z"
            await asyncio.to_thread(booted.reboot)
            assert await judged(world, booted) == ("trusted", ["rebooted"])
            assert (await world.get("nodes/node-1"))["reboot_announced_until"] is None
            await asyncio.to_thread(booted.reboot)
            assert await judged(world, booted) == ("degraded", ["rebooted", "reset-unannounced"])
            await decide(world, "clear-reset")
            await decide(world, "announce-reboot", {"seconds": 60})
            await asyncio.to_thread(booted.reboot)
            world.clock.advance(60)
            assert await judged(world, booted) == ("degraded", ["rebooted", "reset-unannounced"])
            await decide(world, "clear-reset")
            await decide(world, "announce-reboot", {"resets": 2})
            await asyncio.to_thread(booted.reboot)
            await asyncio.to_thread(booted.reboot)
            assert await judged(world, booted) == ("trusted", ["rebooted"])

    run(body)


def test_a_box_that_was_off_without_a_reset_is_told(run: Run, tpms: Any) -> None:
    """Saved state, power off, box open, power on: resetCount stays as it was."""

    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            await asyncio.to_thread(booted.hibernate)
            assert await judged(world, booted) == ("degraded", ["reset-unannounced"])
            await decide(world, "clear-reset")
            assert await judged(world, booted) == ("trusted", [])
            await decide(world, "announce-reboot")
            await asyncio.to_thread(booted.hibernate)
            assert await judged(world, booted) == ("trusted", [])

    run(body)


def test_a_tpm_that_was_cleared_is_no_way_to_boots_that_nobody_counts(run: Run, tpms: Any) -> None:
    """Its counts began anew, and new keys have no state of a clock before them."""

    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)

            async def counted_higher_before(session: AsyncSession) -> None:
                (await session.get_one(NodeRow, "node-1")).reset_watch = ResetWatch(1000, restarts=0).to_json()

            await world.service._store.write(counted_higher_before)
            await world.enrol(booted.node, ticket=await world.ticket(booted.node, **{"class": "open-box"}))
            assert await judged(world, booted) == ("degraded", ["reset-unannounced"])
            await decide(world, "clear-reset")
            assert await judged(world, booted) == ("trusted", [])
            await asyncio.to_thread(booted.reboot)
            assert await judged(world, booted) == ("degraded", ["rebooted", "reset-unannounced"])

    run(body)


def test_a_bad_boot_falls_however_it_was_announced(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            await decide(world, "announce-reboot")
            await asyncio.to_thread(booted.reboot, Tamper.KERNEL)
            assert (await judged(world, booted))[0] == "untrusted"
            await asyncio.to_thread(booted.reboot)  # the way back is a boot, which wants an announcement, too
            assert await judged(world, booted) == ("degraded", ["rebooted", "reset-unannounced"])

    run(body)


def test_a_box_that_is_silent_or_taken_out_and_reset_is_told(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            await asyncio.to_thread(booted.reboot)
            await world.pass_time(91)
            assert (await world.get("nodes/node-1"))["standing"] == "lapsed"
            assert (await judged(world, booted))[0] == "degraded"
            await decide(world, "quarantine")
            await decide(world, "readmit")
            assert (await judged(world, booted))[0] == "degraded"
            await world.enrol(booted.node, ticket=await world.ticket(booted.node, **{"class": "open-box"}))
            assert (await judged(world, booted))[0] == "degraded"  # new keys are no look at the box

    run(body)


@pytest.mark.parametrize("decision", ["announce-reboot", "clear-reset"])
def test_what_is_decided_about_boots_meanwhile_wins_over_a_round(run: Run, tpms: Any, decision: str) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            await asyncio.to_thread(booted.reboot)
            await judged(world, booted)
            challenge = await world.challenge()
            evidence = booted.evidence(challenge)
            looks = world.service.rounds._looks.do

            async def looked(node: str) -> Any:
                seen = await looks(node)
                world.service.rounds._looks.do = looks
                await decide(world, decision)
                return seen

            world.service.rounds._looks.do = looked
            answer = await world.post("evidence", evidence, status=409)
            assert answer["code"] == "evidence-stale"
            assert (await judged(world, booted))[0] == ("trusted" if decision == "clear-reset" else "degraded")

    run(body)


def test_an_approval_says_the_class(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node)
            assert (await world.get("nodes/node-1"))["class"] == "standard"
            approval = {"tenant": "acme", "image": "edge-node", "class": "open-box"}
            assert (await decide(world, "approve", approval))["class"] == "open-box"
            assert (await decide(world, "approve", {"class": "safe"}, status=400))["code"] == "invalid-input"

    run(body)


def test_a_node_announces_its_own_reboot_and_no_other(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            statement = await world.statement()
            world.view.apply(statement)
            generation = (await world.get("nodes/node-1"))["generation"]
            own = world.token("node:host", node="node-1", generation=generation)
            callers = [(None, 401), (world.token("node:host"), 403), (world.token("attest:admin"), 403), (own, 200)]
            for headers, status in callers:
                await world.post("reboots", {"seconds": 300}, headers=headers, status=status)
            answer = await world.post("reboots", {}, headers=world.token("node:host"), status=403)
            assert answer["code"] == "not-a-node"
            assert (await world.post("reboots", {"node": "node-2"}, headers=own, status=400))["code"] == "invalid-input"
            await asyncio.to_thread(booted.reboot)
            assert await judged(world, booted) == ("trusted", ["rebooted"])
            log = (await world.get("audit"))["entries"]
            assert ("node.announce-reboot", "node-1") in [(entry["action"], entry["actor"]) for entry in log]

    run(body)


def test_a_node_fills_no_audit_log_by_its_announcements(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted)
            world.view.apply(await world.statement())
            own = world.token("node:host", node="node-1", generation=(await world.get("nodes/node-1"))["generation"])

            async def written() -> int:
                return len([entry for entry in await world.audited() if entry[0] == "node.announce-reboot"])

            until = (await world.post("reboots", {"seconds": 300}, headers=own))["reboot_announced_until"]
            for covered in ({"seconds": 300}, {"seconds": 359}, {"seconds": 1}):
                assert (await world.post("reboots", covered, headers=own))["reboot_announced_until"] == until
            for more in ({"seconds": 360}, {"seconds": 300, "resets": 2}):
                answer = await world.http.post("/attest/v1/reboots", json=more, headers=own)
                assert (answer.status_code, answer.json()["code"]) == (429, "announcement-too-soon")
                assert answer.headers["retry-after"] == "60"
            assert await written() == 1
            world.clock.advance(60)
            world.view.apply(await world.statement())
            assert (await world.post("reboots", {"resets": 2}, headers=own))["reboot_announced_until"] > until
            assert await written() == 2
            for again in range(3):  # an operator is bounded by nothing
                await decide(world, "announce-reboot", {"seconds": 60 + again})
            assert await written() == 5

    run(body)


def test_a_node_fills_no_audit_log_by_what_is_refused_to_it(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await open_box(world, booted, "standard")
            world.view.apply(await world.statement())
            own = world.token("node:host", node="node-1", generation=(await world.get("nodes/node-1"))["generation"])
            before = len(await world.audited())
            assert (await world.post("reboots", {}, headers=own, status=409))["code"] == "node-class-other"
            assert len(await world.audited()) == before
            assert (await decide(world, "announce-reboot", status=409))["code"] == "node-class-other"
            assert len(await world.audited()) == before + 1

    run(body)


def test_an_announcement_is_bounded(run: Run) -> None:
    async def body(world: Any) -> None:
        for fault in (
            {"seconds": 0},
            {"seconds": 86401},
            {"resets": 0},
            {"resets": 9},
            {"reason": "x" * 201},
            {"more": 1},
        ):
            answer = await decide(world, "announce-reboot", fault, status=400)
            assert answer["code"] == "invalid-input", fault
        bounds = {"seconds": 86400, "resets": 8, "reason": "x" * 200}
        assert (await decide(world, "announce-reboot", bounds, status=404))["code"] == "node-unknown"

    run(body)
