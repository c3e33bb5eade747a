"""What operators ask of many nodes, and decisions that are only tried."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from umec_attest.testing.image import Tamper

Run = Callable[..., None]


async def listed(world: Any, **query: Any) -> tuple[list[str], str | None]:
    headers = query.pop("headers", None)
    page = await world.get("nodes", headers=headers, **query)
    return [node["node"] for node in page["nodes"]], page["next"]


async def try_out(world: Any, decision: str, *, status: int = 200) -> Any:
    where = f"/attest/v1/nodes/node-1/{decision}"
    answer = await world.http.post(where, params={"dry_run": "true"}, json={}, headers=world.admin)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_nodes_are_listed_page_by_page_and_by_what_is_asked(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as first, tpms.booted("node-2", 1) as second:
            await world.ready_node(first)
            await world.enrol(
                second.node, ticket=await world.ticket(second.node, tenant="umbrella", **{"class": "open-box"})
            )
            assert await listed(world) == (["node-1", "node-2"], None)
            assert await listed(world, limit=1) == (["node-1"], "node-1")
            assert await listed(world, limit=1, after="node-1") == (["node-2"], None)
            assert await listed(world, limit=2) == (["node-1", "node-2"], None)
            assert await listed(world, after="node-2") == ([], None)
            for query, expected in (
                ({"standing": "trusted"}, ["node-1"]),
                ({"standing": "pending"}, ["node-2"]),
                ({"standing": "revoked"}, []),
                ({"tenant": "acme"}, ["node-1"]),
                ({"tenant": "umbrella"}, ["node-2"]),
                ({"class": "standard"}, ["node-1"]),
                ({"class": "open-box"}, ["node-2"]),
                ({"class": "open-box", "standing": "trusted"}, []),
            ):
                assert (await listed(world, **query))[0] == expected, query
            mine = world.token("attest:read", tenant="acme")
            assert await listed(world, headers=mine) == (["node-1"], None)
            assert await listed(world, headers=mine, tenant="umbrella") == ([], None)
            for bad in ({"limit": 0}, {"limit": 1001}, {"standing": "good"}, {"class": "safe"}, {"tenant": "A B"}):
                answer = await world.http.get("/attest/v1/nodes", params=bad, headers=world.admin)
                assert (answer.status_code, answer.json()["code"]) == (400, "invalid-input"), bad

    run(body)


def test_a_dry_run_says_what_would_become_of_a_node_and_changes_nothing(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            before, audited = await world.get("nodes/node-1"), len(await world.audited())
            for decision, standing in (("quarantine", "quarantined"), ("revoke", "revoked")):
                said = await try_out(world, decision)
                assert (said["standing"], said["dry_run"]) == (standing, True)
            assert (await try_out(world, "readmit", status=409))["code"] == "standing-conflict"
            assert await world.get("nodes/node-1") == before
            assert len(await world.audited()) == audited
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            assert (await try_out(world, "readmit"))["standing"] == "pending"
            await world.post("nodes/node-1/revoke", {}, headers=world.admin)
            for decision in ("quarantine", "revoke"):
                assert (await try_out(world, decision, status=403))["code"] == "node-revoked"
            ghost = await world.http.post("/attest/v1/nodes/ghost/revoke?dry_run=true", json={}, headers=world.admin)
            assert (ghost.status_code, ghost.json()["code"]) == (404, "node-unknown")

    run(body)


@pytest.mark.parametrize("forgiven", [False, True])
def test_who_was_found_untrusted_is_readmitted_as_the_settings_say(run: Run, tpms: Any, forgiven: bool) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await asyncio.to_thread(booted.reboot, Tamper.KERNEL)
            await world.post("evidence", booted.evidence(await world.challenge()), status=422)
            assert (await world.round(booted))["standing"] == "untrusted"
            if forgiven:
                assert (await try_out(world, "readmit"))["standing"] == "pending"
            else:
                assert (await try_out(world, "readmit", status=409))["code"] == "readmit-needs-boot"
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            expected = "pending" if forgiven else "untrusted"
            assert (await try_out(world, "readmit"))["standing"] == expected
            said = await world.post("nodes/node-1/readmit", {}, headers=world.admin)
            assert (said["standing"], said["reason"]) == (expected, "readmitted")
            assert (await world.get("nodes/node-1/explain"))["needs_new_boot"] is not forgiven

    run(body, operator_may_readmit_untrusted=forgiven)


def test_an_explanation_names_the_event_and_the_expected_and_found_digest(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted("node-2", 1) as good, tpms.booted() as booted:
            await world.ready_node(good)
            await world.ready_node(booted)
            await asyncio.to_thread(booted.reboot, Tamper.CMDLINE)
            await world.post("evidence", booted.evidence(await world.challenge()), status=422)
            await world.round(booted)
            said = await world.get("nodes/node-1/explain")
            assert said["standing"] == "untrusted"
            [finding] = [one for one in said["last_round"]["findings"] if one["detail"].startswith("PCR 11 ")]
            assert finding["id"] == "pcr-unexpected"
            assert len(finding["expected"]) == len(finding["found"]) == 64
            assert finding["expected"] != finding["found"]
            wrong = [event for event in said["events"] if event["pcr"] == 11 and event["as_expected"] is False]
            assert [event["data"] for event in wrong] == ["cmdline"]
            assert len(wrong[0]["digest"]) == 64

    run(body)
