"""Every refusal that depends on what is in the store, beside the same request where that one thing is otherwise."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update
from starlette.requests import Request

from umec_core.errors import UmecError
from umec_core.standing import Standing, StandingEntry, StandingStatement
from umec_platform import api
from umec_platform.effects import RuleKey
from umec_platform.instances.service import serves
from umec_platform.services import service as services_module
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.instances import InstanceRow
from umec_platform.tables.services import SubscriptionRow

MANAGEMENT = "https://authority.test:8443"
LCM, PKGM = "/app_lcm/v1", "/app_pkgm/v1/app_packages"
SERVICES, SUPPORT = "/mec_service_mgmt/v1", "/mec_app_support/v1"
TRANSPORT = {
    "id": "t1",
    "name": "REST",
    "type": "REST_HTTP",
    "protocol": "HTTP",
    "version": "1.1",
    "endpoint": {"fqdn": ["hello.harbour.example"]},
}
SERVICE = {"serName": "hello", "version": "1.0", "state": "ACTIVE", "serializer": "JSON", "transportInfo": TRANSPORT}


async def said(answer: Any) -> Any:
    """Return the status and, for a problem, its code."""
    found = await answer
    return found.status_code if found.is_success else (found.status_code, found.json()["code"])


async def change(world: Any, kind: type[Any], **values: Any) -> None:
    """Write into the rows behind the platform's back."""

    async def work(session: Any) -> None:
        await session.execute(update(kind).values(**values))

    await world.service._store.write(work)


async def made(world: Any, **members: Any) -> str:
    answer = await world.operate("POST", f"{LCM}/app_instances?tenant=harbour", json={"appDId": "hello-1", **members})
    return str(answer.json()["id"])


def test_entity_tags_come_one_at_a_time() -> None:
    def asked(*values: str) -> str | None:
        headers = [(b"if-match", value.encode()) for value in values]
        return api.if_match(Request({"type": "http", "headers": headers}))

    assert (asked(), asked('"1"'), asked(' "1" ')) == (None, '"1"', '"1"')
    for wrong in (('"1"', '"2"'), ('"1", "2"',)):
        with pytest.raises(UmecError) as refused:
            asked(*wrong)
        assert refused.value.code == "query-invalid"


def test_what_packages_and_instances_refuse(world: Any) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            ask = world.operate
            for path, what in (
                (PKGM, "package"),
                (f"{LCM}/app_instances", "instance"),
                (f"{LCM}/app_lcm_op_occs", "operation"),
            ):
                assert await said(ask("GET", f"{path}/none")) == (404, f"{what}-unknown")
            assert await said(ask("POST", f"{PKGM}?tenant=harbour", json={})) == (404, "tenant-unknown")
            await world.furnish()
            assert await said(ask("POST", PKGM, json={})) == (403, "tenant-foreign")
            package = (await ask("POST", f"{PKGM}?tenant=harbour", json={})).json()["id"]
            assert await said(ask("GET", f"{PKGM}/{package}/appd")) == (409, "package-state")
            first = await world.onboard()
            assert await said(ask("GET", f"{PKGM}/{first}/appd")) == 200
            appd = (await ask("GET", f"{PKGM}/{first}/appd")).json()
            content = f"{PKGM}/{package}/package_content"
            assert await said(ask("PUT", content, json=appd)) == (409, "already-exists")
            assert await said(ask("PUT", content, json={**appd, "appDId": "hello-2"})) == 200
            body = {"appDId": "hello-1"}
            assert await said(ask("POST", f"{LCM}/app_instances", json={"appDId": "none"})) == (404, "package-unknown")
            assert await said(ask("POST", f"{LCM}/app_instances", json=body)) == 201
            await world.onboard("transit")
            assert await said(ask("POST", f"{LCM}/app_instances", json=body)) == (409, "package-state")
            instance = await made(world)
            assert await said(ask("DELETE", f"{PKGM}/{first}")) == (409, "package-state")
            here = f"{LCM}/app_instances/{instance}"
            assert await said(ask("POST", f"{here}/terminate", json={})) == (409, "instance-state")
            assert await said(ask("GET", f"/platform/v1/instances/{instance}/log")) == (409, "instance-state")
            nowhere = {"mecHostInformation": [{"hostId": "host-z"}]}
            assert await said(ask("POST", f"{here}/instantiate", json=nowhere)) == (404, "host-unknown")
            assert await said(ask("POST", f"{here}/instantiate", json={})) == 202
            assert await said(ask("POST", f"{here}/instantiate", json={})) == (409, "instance-state")
            assert await said(ask("DELETE", here)) == (409, "instance-state")
            assert await said(ask("DELETE", f"{PKGM}/{package}")) == 204

    asyncio.run(scenario())


def test_an_instance_that_runs_is_neither_started_again_nor_removed(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            running = await world.instantiate()
            here = f"{LCM}/app_instances/{running}"
            assert (await world.operate("GET", here)).json()["instantiationState"] == "INSTANTIATED"
            assert await said(world.operate("POST", f"{here}/instantiate", json={})) == (409, "instance-state")
            assert await said(world.operate("DELETE", here)) == (409, "instance-state")
            await world.order(running, "terminate", {"terminationType": "FORCEFUL"})
            assert await said(world.operate("DELETE", here)) == 204

    asyncio.run(scenario())


def test_what_is_refused_while_no_host_is_trusted_or_there_is_none(world: Any) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            tenant = {"id": "harbour", "name": "h", "addresses": ["203.0.113.8/29"], "domains": ["harbour.example"]}
            await world.operate("POST", "/platform/v1/tenants", json=tenant)
            await world.onboard()
            here = f"{LCM}/app_instances/{await made(world)}/instantiate"
            assert await said(world.operate("POST", here, json={})) == (404, "host-unknown")
            host = {"id": "host-a", "node": "node-a", "netd": "/run/a"}
            await world.operate("POST", "/platform/v1/hosts", json=host)
            assert await said(world.operate("POST", here, json={})) == (422, "host-not-trusted")
            await world.stand("node-a", Standing.DEGRADED, 1)
            # What a node is worth is the operator's to know.
            answer = await world.operate("POST", here, json={})
            assert (answer.status_code, answer.json()["code"]) == (422, "host-not-trusted")
            assert "node-a is degraded" in answer.json()["detail"]
            token = world.token(f"{MANAGEMENT}/platform/v1", "platform:tenant", tenant="harbour")
            for body in ({}, {"mecHostInformation": [{"hostId": "host-a"}]}):
                answer = await world.call("POST", MANAGEMENT + here, token, json=body)
                assert (answer.status_code, answer.json()["code"]) == (422, "host-not-trusted")
                assert not {"node-a", "degraded"} & set(answer.json()["detail"].split())
            await world.stand("node-a", Standing.TRUSTED, 2)
            assert await said(world.call("POST", MANAGEMENT + here, token, json={})) == 202
            with pytest.raises(UmecError) as refused:
                await world.service._fleet.driver("host-z")
            assert refused.value.code == "host-silent"

    asyncio.run(scenario())


def test_a_host_that_is_a_node_of_a_tenant_takes_nothing_of_another(world: Any, wait_until: Callable[..., Any]) -> None:
    pole = {"id": "a-pole", "node": "a-pole", "netd": "node:a-pole"}

    async def scenario() -> None:
        async with world.open(working=False):
            await world.furnish()
            assert (await world.operate("POST", "/platform/v1/hosts", json=pole)).status_code == 201
            await world.stand("a-pole", Standing.TRUSTED, 1)  # of harbour, as all nodes here
            await world.onboard("transit", appDId="theirs")
            there = await world.operate("POST", f"{LCM}/app_instances?tenant=transit", json={"appDId": "theirs"})
            here = f"{LCM}/app_instances/{there.json()['id']}"
            named = {"mecHostInformation": [{"hostId": "a-pole"}]}
            assert await said(world.operate("POST", f"{here}/instantiate", json=named)) == (422, "host-foreign")
            # Nothing is known of the node for a moment; it is when the start begins.
            known = world.view._entries.pop("a-pole")
            assert await said(world.operate("POST", f"{here}/instantiate", json=named)) == 202
            world.view._entries["a-pole"] = known
        async with world.open():
            ended = f"{LCM}/app_lcm_op_occs"

            async def failed() -> bool:
                [order] = (await world.operate("GET", ended)).json()
                return order["operationState"] == "FAILED" and order["error"]["code"] == "host-foreign"

            await wait_until(failed)
            # By its name it is the first of all, and passed over.
            order = await world.order(there.json()["id"], "instantiate", {})
            assert order["operationState"] == "COMPLETED"
            assert (await world.operate("GET", here)).json()["host"] == "host-a"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("netd", "tenant", "taken"),
    [
        ("node:pole", "harbour", True),
        ("node:pole", None, True),
        ("node:pole", "transit", False),
        ("/run/a", "transit", True),
    ],
)
def test_whose_applications_a_host_takes(netd: str, tenant: str | None, taken: bool) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    host = HostRow(id="pole", node="pole", netd=netd, created_at=now)
    node = StandingEntry(1, "pole", tenant, Standing.TRUSTED, 1, now)
    assert serves(host, node, "harbour") is taken


def test_what_a_start_finds_changed_meanwhile(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            wish = {"mecHostInformation": [{"hostId": "host-a"}]}
            # The feed knows of a degradation that is not in the rows yet.
            entry = StandingEntry(world.seq + 1, "node-a", "harbour", Standing.DEGRADED, 2, world.now)
            world.seq += 1
            world.view.apply(StandingStatement(world.now, world.seq - 1, world.seq, None, (entry,)))
            order = await world.order(await made(world), "instantiate", wish)
            assert (order["operationState"], order["error"]["code"]) == ("FAILED", "host-not-trusted")
            await world.stand("node-a", Standing.TRUSTED, 3)
            # The instance is terminated before the host has started it.
            instance = await made(world)
            world.neighbours.gate, asked = asyncio.Event(), world.neighbours.asked
            await world.operate("POST", f"{LCM}/app_instances/{instance}/instantiate", json=wish)
            await wait_until(lambda: world.neighbours.asked > asked)
            assert await said(world.operate("POST", f"{LCM}/app_instances/{instance}/terminate", json={})) == 202
            world.neighbours.gate.set()

            async def ended() -> bool:
                found = (await world.operate("GET", f"{LCM}/app_lcm_op_occs")).json()
                ends = {(one["lcmOperation"], one["operationState"], one.get("error", {}).get("code")) for one in found}
                return {("INSTANTIATE", "FAILED", "operation-overtaken"), ("TERMINATE", "COMPLETED", None)} <= ends

            await wait_until(ended)
            assert world.host.instances == {}
            assert world.neighbours.clients == {}
            assert (await world.order(instance, "instantiate", wish))["operationState"] == "COMPLETED"

    asyncio.run(scenario())


def test_what_the_registry_of_services_refuses(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app, other = await world.instantiate(), await world.instantiate()
            idle = await made(world)

            def ask(method: str, path: str, who: str = app, **arguments: Any) -> Any:
                return said(world.apply(who, method, path, **arguments))

            own = f"{SERVICES}/applications/{app}/services"
            described = {name: value for name, value in SERVICE.items() if name != "transportInfo"}
            for members, refusal in (
                ({**SERVICE, "serInstanceId": "mine"}, (400, "service-invalid")),
                ({**SERVICE, "state": "SUSPENDED"}, (400, "service-invalid")),
                ({**described, "transportId": "t1"}, (404, "transport-unknown")),
            ):
                assert await ask("POST", own, json=members) == refusal
            for who, refusal in ((idle, (409, "instance-state")), ("none", (404, "instance-unknown"))):
                assert await ask("POST", f"{SERVICES}/applications/{who}/services", who, json=SERVICE) == refusal
            await change(world, HostRow, standing="lapsed")
            assert await ask("POST", own, json=SERVICE) == (422, "host-not-trusted")
            await change(world, HostRow, standing="degraded")
            made_one = await world.apply(app, "POST", own, json=SERVICE)
            here = f"{own}/{made_one.json()['serInstanceId']}"
            monkeypatch.setattr(services_module, "MAX_SERVICES", 1)
            assert await ask("POST", own, json=SERVICE) == (429, "too-many")
            named = made_one.json()["serInstanceId"]
            for members, refusal in (
                ({**SERVICE, "serInstanceId": "another"}, (400, "service-invalid")),
                ({**described, "transportId": "t1"}, (404, "transport-unknown")),
                ({**SERVICE, "serInstanceId": named}, 200),
            ):
                assert await ask("PUT", here, json=members) == refusal
            unknown = (404, "service-unknown")
            assert await ask("GET", f"{SERVICES}/services/none") == unknown
            theirs = f"{SERVICES}/applications/{other}/services/{named}"
            for method in ("GET", "DELETE"):
                assert await ask(method, theirs, other) == unknown
            beat = f"{SERVICES}/services/{named}/liveness"
            assert await ask("PATCH", beat, json={"state": "ACTIVE"}) == (409, "instance-state")
            assert await ask("PUT", here, json={**SERVICE, "livenessInterval": 5}) == 200
            assert await ask("PATCH", beat, json={"state": "ACTIVE"}) == 204
            # A token that names no tenant finds nobody's services.
            lost = world.token("https://authority.test:8444/", "mec:services.read", instance=app)
            answer = world.call("GET", f"https://authority.test:8444{SERVICES}/services", lost)
            assert await said(answer) == (403, "tenant-foreign")

    asyncio.run(scenario())


def test_a_subscription_of_another_instance_or_kind_is_not_found(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app, other = await world.instantiate(), await world.instantiate()
            row = {"id": "s1", "tenant": "harbour", "instance": app, "kind": "service", "document": {}}

            async def work(session: Any) -> None:
                session.add(SubscriptionRow(**row, created_at=world.now))

            await world.service._store.write(work)
            unknown = (404, "subscription-unknown")

            def at(base: str, who: str, identifier: str = "s1") -> Any:
                return said(world.apply(who, "GET", f"{base}/applications/{who}/subscriptions/{identifier}"))

            assert await at(SERVICES, app) == 200
            assert await at(SERVICES, app, "none") == unknown
            assert await at(SERVICES, other) == unknown
            assert await at(SUPPORT, app) == unknown
            wish = {
                "subscriptionType": "AppTerminationNotificationSubscription",
                "callbackReference": "http://10.64.1.10/x",
            }
            for named, refusal in ((other, (403, "instance-foreign")), (app, (422, "subscription-unsupported"))):
                asked = world.apply(
                    app, "POST", f"{SUPPORT}/applications/{app}/subscriptions", json={**wish, "appInstanceId": named}
                )
                assert await said(asked) == refusal

    asyncio.run(scenario())


def test_what_an_application_confirms_is_what_is_happening(world: Any, wait_until: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            idle = await made(world)
            unexpected = (409, "confirmation-not-expected")

            def confirm(what: str, who: str) -> Any:
                body = {"ready": {"indication": "READY"}, "termination": {"operationAction": "TERMINATING"}}[what]
                return said(world.apply(who, "POST", f"{SUPPORT}/applications/{who}/confirm_{what}", json=body))

            assert await said(world.apply("none", "GET", f"{SUPPORT}/registrations/none")) == (404, "instance-unknown")
            assert await said(world.apply("none", "GET", f"{SUPPORT}/applications/none/dns_rules")) == (
                404,
                "instance-unknown",
            )
            assert (await confirm("ready", idle), await confirm("ready", app)) == (unexpected, 204)
            assert await confirm("termination", app) == unexpected
            # An operation of another kind is under way.
            world.neighbours.gate = asyncio.Event()
            await world.operate("POST", f"{LCM}/app_instances/{idle}/instantiate", json={})

            async def state(kind: str, wanted: str) -> bool:
                found = (await world.operate("GET", f"{LCM}/app_lcm_op_occs")).json()
                return any((one["lcmOperation"], one["operationState"]) == (kind, wanted) for one in found)

            await wait_until(lambda: state("INSTANTIATE", "PROCESSING"))
            assert await confirm("termination", idle) == unexpected
            world.neighbours.gate.set()
            # A termination is confirmed once, while it is worked on.
            world.host.silent = True
            await world.operate("POST", f"{LCM}/app_instances/{app}/terminate", json={})
            await wait_until(lambda: state("TERMINATE", "PROCESSING"))
            assert (await confirm("termination", app), await confirm("termination", app)) == (204, unexpected)

    asyncio.run(scenario())


def test_a_termination_that_nobody_works_on_yet_is_not_confirmed(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
        async with world.open(working=False):
            await world.operate("POST", f"{LCM}/app_instances/{app}/terminate", json={})
            answer = world.apply(
                app,
                "POST",
                f"{SUPPORT}/applications/{app}/confirm_termination",
                json={"operationAction": "TERMINATING"},
            )
            assert await said(answer) == (409, "confirmation-not-expected")

    asyncio.run(scenario())


async def rule_of(world: Any, app: str) -> dict[str, Any]:
    answer = await world.apply(app, "GET", f"{SUPPORT}/applications/{app}/dns_rules/Name")
    return dict(answer.json())


async def audited(world: Any, action: str) -> list[str]:
    entries = (await world.operate("GET", "/platform/v1/audit")).json()["entries"]
    return [one["outcome"] for one in entries if one["action"] == action]


def test_a_rule_is_switched_on_where_its_node_stands_and_its_instance_runs(world: Any) -> None:
    async def scenario() -> None:
        async with world.open(working=True):
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            path = f"{SUPPORT}/applications/{app}/dns_rules/Name"
        # Nobody tells the hosts: what is refused is refused before it is written.
        async with world.open(working=False):
            wish = {**await rule_of(world, app), "state": "ACTIVE"}
            await change(world, HostRow, standing="untrusted")
            assert await said(world.apply(app, "PUT", path, json=wish)) == (422, "host-not-trusted")
            assert (await audited(world, "rule.activate"), (await rule_of(world, app))["state"]) == ([], "INACTIVE")
            await change(world, HostRow, standing="trusted")
            await change(world, InstanceRow, address=None)
            assert await said(world.apply(app, "PUT", path, json=wish)) == (409, "instance-state")
            await change(world, InstanceRow, address="10.64.1.10")
            assert await said(world.apply(app, "PUT", path, json=wish)) == (503, "host-silent")
            assert await audited(world, "rule.activate") == ["done"]

    asyncio.run(scenario())


def test_a_rule_that_its_host_does_not_hold_is_not_said_to_be_taken(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            path = f"{SUPPORT}/applications/{app}/dns_rules/Name"
            wish = {**await rule_of(world, app), "state": "ACTIVE"}
            assert await said(world.apply(app, "PUT", path, json=wish)) == 200
            await change(world, HostRow, standing="untrusted")
            worker = world.service._fleet._workers["host-a"]
            key = RuleKey(app, "dns", "Name")

            async def applied() -> None:
                async with worker.settled(key, seconds=5.0) as waiter:
                    waiter.expect(1)
                    await worker.apply(key)

            with pytest.raises(UmecError) as refused:
                await applied()
            assert refused.value.code == "host-not-trusted"
            assert world.host.dns == {}
            await change(world, HostRow, standing="trusted")
            await applied()
            assert len(world.host.dns) == 1

    asyncio.run(scenario())


def test_what_a_host_refuses_of_its_whole_state_is_switched_off_with_the_reason(
    world: Any, wait_until: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            path = f"{SUPPORT}/applications/{app}/dns_rules/Name"
            wish = {**await rule_of(world, app), "state": "ACTIVE"}
            assert await said(world.apply(app, "PUT", path, json=wish)) == 200
            world.host.refuse["hello.harbour.example"] = "dns-name-taken"
            await world.stand("node-a", Standing.DEGRADED, 2)

            async def off() -> bool:
                rules = (await world.operate("GET", "/platform/v1/rules")).json()
                found = {rule["kind"]: (rule["rule"]["state"], rule["refusal"]) for rule in rules}
                return found["dns"] == ("INACTIVE", "dns-name-taken")

            await wait_until(off)
            # What passes by itself says nothing about the rule.
            world.host.refuse.clear()
            assert await said(world.apply(app, "PUT", path, json=wish)) == 200
            world.host.refuse["hello.harbour.example"] = "lease-expired"
            syncs = world.host.syncs
            await world.stand("node-a", Standing.TRUSTED, 3)
            await wait_until(lambda: world.host.syncs > syncs)
            await asyncio.sleep(0.1)
            assert (await rule_of(world, app))["state"] == "ACTIVE"

    asyncio.run(scenario())


def test_times_are_those_of_the_standard() -> None:
    moment = datetime.fromisoformat("2026-11-22T12:00:00.25+01:00")
    assert api.rfc3339(moment) == "2026-11-22T11:00:00.250Z"
    assert api.seconds(moment) == {"seconds": int(moment.timestamp()), "nanoSeconds": 250_000_000}
