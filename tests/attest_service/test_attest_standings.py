"""Standings: the feed, the silent, restarts, operators, and who may ask."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from umec_attest.appraisal import Verdict
from umec_attest.service.evidence.transition import next_standing
from umec_core.audit import verify_export
from umec_core.jose import KeySet
from umec_core.standing import Standing, StandingView, verify_statement

Run = Callable[..., None]


def test_the_feed_says_what_changed_after_a_number(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        empty = await world.statement()
        assert (empty.last, empty.entries) == (0, ())
        with tpms.booted() as first, tpms.booted("node-2", 1) as second:
            await world.ready_node(first)
            await world.ready_node(second)
            full = await world.statement()
            assert [(entry.node, entry.standing.value, entry.generation) for entry in full.entries] == [
                ("node-1", "trusted", 2),
                ("node-2", "trusted", 2),
            ]
            await world.post("nodes/node-2/quarantine", {}, headers=world.admin)
            news = await world.statement(full.last)
            assert [(entry.node, entry.standing.value) for entry in news.entries] == [("node-2", "quarantined")]
            one = await world.statement(node="node-1")
            assert ({entry.node for entry in one.entries}, one.last) == ({"node-1"}, news.last)
            view = StandingView()
            for statement in (full, news, await world.statement(news.last)):
                view.apply(statement)
            view.check("node-1", 2, world.clock())
            ahead = await world.get("standings", after=news.last + 1, status=409)
            assert ahead["code"] == "standing-feed-behind"

    run(body)


def test_a_waiting_request_wakes_when_something_changes(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            last = (await world.statement()).last
            waiting = asyncio.create_task(world.statement(last, wait=5))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            began = time.monotonic()
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            news = await waiting
            assert time.monotonic() - began < 4  # it would wait for 4.8
            assert news.entries[0].standing is Standing.QUARANTINED
            quiet = await world.statement(news.last, wait=0.1)
            assert quiet.entries == ()
            assert quiet.last == news.last

    run(body)


def test_a_silent_node_lapses_unasked_and_comes_back_by_good_evidence(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, watching(world):
            await world.ready_node(booted)
            last = (await world.statement()).last
            await world.pass_time(89)
            assert (await world.statement(last, wait=1.2)).entries == ()
            world.clock.advance(1)
            lapsed = (await world.statement(last, wait=5)).entries[0]
            assert (lapsed.standing, lapsed.generation) == (Standing.LAPSED, 3)
            back = await world.round(booted)
            assert (back["standing"], back["generation"]) == ("trusted", 4)

    run(body)


def test_a_deadline_is_kept_between_two_marks_of_presence(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await world.pass_time(2)
            await world.pass_time(85)  # marks every five seconds from here on
            world.clock.advance(2)
            await world.service.look()
            assert (await world.get("nodes/node-1"))["standing"] == "trusted"
            world.clock.advance(1)
            await world.service.look()
            assert (await world.get("nodes/node-1"))["standing"] == "lapsed"

    run(body)


def test_an_untrusted_node_does_not_lapse_into_something_better(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            challenge = {**await world.challenge(), "boot_log": "full"}
            good = booted.log
            booted.log = good[:-1]
            assert (await world.post("evidence", booted.evidence(challenge)))["standing"] == "untrusted"
            last = (await world.statement()).last
            await world.pass_time(200)
            assert (await world.statement(last)).entries == ()
            booted.log = good
            assert (await world.round(booted))["standing"] == "untrusted"

    run(body)


def test_a_restart_forgets_no_deadline_no_challenge_and_no_answer(reopen: Any, tpms: Any, clock: Any) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as world:
                await world.ready_node(booted)
                evidence = booted.evidence(await world.challenge())
                pending = booted.evidence(await world.challenge())
                keys = (await world.http.get("/attest/v1/jwks")).json()
            async with reopen(clock) as world:  # in mid-round
                assert (await world.http.get("/attest/v1/jwks")).json() == keys
                assert (await world.post("evidence", evidence))["verdict"] == "affirming"
                last = (await world.statement()).last
            async with reopen(clock) as world:
                assert (await world.post("evidence", evidence, status=409))["code"] == "evidence-replayed"
                assert (await world.post("evidence", pending, status=409))["code"] == "nonce-superseded"
                await world.pass_time(80)
            clock.advance(10)  # a restart that takes less than half a round
            async with reopen(clock) as world:
                with watching(world):
                    assert (await world.statement(last, wait=5)).entries[0].standing is Standing.LAPSED

    asyncio.run(body())


def test_operators_quarantine_and_readmit(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            path, who = "nodes/node-1", world.admin
            assert (await world.post(f"{path}/readmit", {}, status=409, headers=who))["code"] == "standing-conflict"
            await world.post(f"{path}/quarantine", {"reason": "looks odd"}, headers=who)
            kept = await world.round(booted)
            assert (kept["verdict"], kept["standing"], kept["ear"]) == ("affirming", "quarantined", None)
            await world.post(f"{path}/readmit", {}, headers=who)
            assert (await world.round(booted))["standing"] == "trusted"
            await world.post(f"{path}/revoke", {}, headers=who)
            for move in ("quarantine", "revoke"):
                assert (await world.post(f"{path}/{move}", {}, status=403, headers=who))["code"] == "node-revoked"
            assert (await world.post(f"{path}/readmit", {}, status=409, headers=who))["code"] == "standing-conflict"
            assert (await world.get("nodes/nobody", status=404))["code"] == "node-unknown"

    run(body)


def test_nothing_is_decided_about_nobody(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        who, assigned = world.admin, {"tenant": "acme", "image": "street-node"}
        decisions = [("approve", assigned), ("quarantine", {}), ("readmit", {}), ("revoke", {})]
        for move, given in decisions:
            refused = await world.post(f"nodes/node-1/{move}", given, status=404, headers=who)
            assert refused["code"] == "node-unknown"
            assert (f"node.{move}", "refused", "node-unknown") in await world.audited()
        with tpms.booted() as booted:
            await world.enrol(booted.node)
            for move, given in decisions:
                assert (await world.post(f"nodes/node-1/{move}", given, headers=who))["node"] == "node-1"

    run(body)


def test_everything_is_in_an_audit_log_that_cannot_be_rewritten(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            export = await world.get("audit")
            checkpoint = verify_export(export, world.service.audit_public_key)
            assert checkpoint.size == len(export["entries"])
            actions = [entry["action"] for entry in export["entries"]]
            assert actions == ["ticket.create", "node.enrol", "reference.install", "standing.change", "result.issue"]
            await world.round(booted)
            later = await world.get("audit")
            verify_export(later, world.service.audit_public_key, export["checkpoint"])

    run(body)


ENDPOINTS = [
    ("POST", "/attest/v1/tickets", "attest:admin"),
    ("POST", "/attest/v1/reference-sets", "attest:admin"),
    ("GET", "/attest/v1/reference-sets", "attest:read"),
    ("GET", "/attest/v1/nodes", "attest:read"),
    ("GET", "/attest/v1/nodes/node-1", "attest:read"),
    ("GET", "/attest/v1/nodes/node-1/explain", "attest:read"),
    ("GET", "/attest/v1/nodes/node-1/history", "attest:read"),
    ("GET", "/attest/v1/nodes/node-1/evidence/" + "0" * 64, "attest:read"),
    ("POST", "/attest/v1/nodes/node-1/approve", "attest:admin"),
    ("POST", "/attest/v1/nodes/node-1/quarantine", "attest:admin"),
    ("POST", "/attest/v1/nodes/node-1/readmit", "attest:admin"),
    ("POST", "/attest/v1/nodes/node-1/revoke", "attest:admin"),
    ("POST", "/attest/v1/nodes/node-1/announce-reboot", "attest:admin"),
    ("POST", "/attest/v1/nodes/node-1/clear-reset", "attest:admin"),
    ("POST", "/attest/v1/nodes/node-1/allow-version", "attest:admin"),
    ("GET", "/attest/v1/nodes/node-1/secrets", "attest:read"),
    ("PUT", "/attest/v1/nodes/node-1/secrets/disk", "attest:admin"),
    ("DELETE", "/attest/v1/nodes/node-1/secrets/disk", "attest:admin"),
    ("PUT", f"/attest/v1/allowed-tpms/{'ab' * 32}", "attest:admin"),
    ("DELETE", f"/attest/v1/allowed-tpms/{'ab' * 32}", "attest:admin"),
    ("GET", "/attest/v1/standings", "standings:read"),
    ("GET", "/attest/v1/audit", "attest:admin"),
]
OPEN = {
    ("POST", "/attest/v1/enrolments"),
    ("POST", "/attest/v1/enrolments/{enrolment}/activation"),
    ("POST", "/attest/v1/challenges"),
    ("POST", "/attest/v1/evidence"),
    ("POST", "/attest/v1/secrets/release"),
    ("POST", "/attest/v1/rotations"),
    ("POST", "/attest/v1/rotations/proof"),
    ("GET", "/attest/v1/checkpoint"),
    ("GET", "/attest/v1/jwks"),
}
"""What a node without credentials, or everybody, may call."""
OWN = {("GET", "/attest/v1/standings/own"), ("POST", "/attest/v1/reboots")}
"""What a node may do about itself; see `…_reads_its_own_standing_…` here and `…_its_own_reboot_…` of open boxes."""


@pytest.mark.parametrize(("method", "path", "scope"), ENDPOINTS)
def test_who_may_call(run: Run, method: str, path: str, scope: str) -> None:
    async def body(world: Any) -> None:
        async def ask(headers: dict[str, str]) -> httpx.Response:
            return await world.http.request(
                method, path, headers=headers, json={} if method in {"POST", "PUT"} else None
            )

        anonymous = await ask({})
        assert (anonymous.status_code, anonymous.json()["code"]) == (401, "token-missing")
        assert "DPoP" in anonymous.headers["www-authenticate"]
        others = {"attest:admin", "attest:read", "standings:read", "platform:admin"} - {scope}
        wrong = await ask(world.token(*others))
        assert (wrong.status_code, wrong.json()["code"]) == (403, "token-scope")
        assert "insufficient_scope" in wrong.headers["www-authenticate"]
        foreign = await ask(world.token(scope, audience="https://edge.example:8443/platform/v1"))
        assert (foreign.status_code, foreign.json()["code"]) == (401, "token-audience")
        assert (await ask(world.token(scope))).status_code not in {401, 403}

    run(body)


def test_the_matrix_knows_every_endpoint(run: Run) -> None:
    async def body(world: Any) -> None:
        known = (
            {
                (
                    method,
                    path.replace("node-1", "{node}")
                    .replace("disk", "{name}")
                    .replace("0" * 64, "{sha256}")
                    .replace("ab" * 32, "{ek_sha256}"),
                )
                for method, path, _ in ENDPOINTS
            }
            | OPEN
            | OWN
        )
        served = {
            (method, route.path)
            for router in world.service.routers
            for route in router.routes
            for method in route.methods
        }
        assert served == known

    run(body)


def test_a_node_reads_its_own_standing_and_no_other(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await world.ready_node(other)
            world.view.apply(await world.statement())
            path = "standings/own"
            assert (await world.http.get(f"/attest/v1/{path}")).json()["code"] == "token-missing"
            wrong = world.token("attest:read", node="node-1", generation=2)
            assert (await world.get(path, headers=wrong, status=403))["code"] == "token-scope"
            nobody = world.token("node:host")
            assert (await world.get(path, headers=nobody, status=403))["code"] == "not-a-node"
            old = world.token("node:host", node="node-1", generation=1)
            assert (await world.get(path, headers=old, status=403))["code"] == "standing-fallen"
            own = world.token("node:host", node="node-1", generation=2)
            assert (await world.get(path, headers=own, status=400, node="node-2"))["code"] == "query-invalid"
            answer = await world.get(path, headers=own)
            keys = KeySet.from_jwks((await world.http.get("/attest/v1/jwks")).json())
            said = verify_statement(answer["statement"], keys, issuer=world.settings.issuer, now=world.clock())
            assert (said.node, [entry.node for entry in said.entries]) == ("node-1", ["node-1"])

    run(body)


def test_a_tenant_sees_its_own_nodes_only(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            own, other = (world.token("attest:read", tenant=name) for name in ("acme", "globex"))
            assert len((await world.get("nodes", headers=own))["nodes"]) == 1
            assert (await world.get("nodes", headers=other))["nodes"] == []
            assert (await world.get("nodes/node-1", headers=other, status=404))["code"] == "node-unknown"
            assert (await world.get("nodes/node-1/explain", headers=other, status=404))["code"] == "node-unknown"
            await world.get("nodes/node-1/explain", headers=own)

    run(body)


@pytest.mark.parametrize("now", list(Standing))
@pytest.mark.parametrize("verdict", list(Verdict))
def test_no_verdict_lifts_what_it_may_not(now: Standing, verdict: Verdict) -> None:
    same_boot = next_standing(now, verdict, approved=True, reset_count=7, fell_at_reset=7)
    assert not same_boot.stands
    unapproved = next_standing(now, verdict, approved=False, reset_count=7, fell_at_reset=None)
    assert now is not Standing.PENDING or unapproved is Standing.PENDING
    fresh = next_standing(now, verdict, approved=True, reset_count=8, fell_at_reset=7)
    operator_only = {Standing.QUARANTINED, Standing.REVOKED}
    assert fresh.stands is (verdict is not Verdict.CONTRAINDICATED and now not in operator_only)


@contextlib.contextmanager
def watching(world: Any) -> Any:
    """Run the background work of the service."""
    task = asyncio.create_task(world.service.run())
    try:
        yield
    finally:
        task.cancel()
