"""The conventions of MEC 009: entity tags, unknown parameters, problems; and what may not be changed."""

import asyncio
import io
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from umec_core.standing import Standing

SERVICES = "/mec_service_mgmt/v1"
SUPPORT = "/mec_app_support/v1"
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
        "endpoint": {"fqdn": ["hello.harbour.example"]},
    },
}


def test_a_change_is_made_to_what_was_read_or_not_at_all(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            made = await world.apply(app, "POST", f"{SERVICES}/applications/{app}/services", json=SERVICE)
            here = f"{SERVICES}/applications/{app}/services/{made.json()['serInstanceId']}"
            rule = f"{SUPPORT}/applications/{app}/traffic_rules/Web"
            for path, body in ((here, SERVICE), (rule, None)):
                read = await world.apply(app, "GET", path)
                wish = body or {**read.json(), "state": "ACTIVE"}
                stale = await world.apply(app, "PUT", path, json=wish, headers={"If-Match": '"77"'})
                assert (stale.status_code, stale.json()["code"]) == (412, "etag-differs")
                tag = {"If-Match": read.headers["ETag"]}
                changed = await world.apply(app, "PUT", path, json=wish, headers=tag)
                assert changed.status_code == 200, changed.text
                again = await world.apply(app, "PUT", path, json=wish, headers=tag)
                assert again.status_code == 412
            gone = await world.apply(app, "DELETE", here, headers={"If-Match": '"1"'})
            assert gone.status_code == 412
            assert (await world.apply(app, "DELETE", here, headers={"If-Match": "*"})).status_code == 204
            assert (await world.apply(app, "GET", here)).json()["code"] == "service-unknown"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "query", ["colour=red", "ser_name=a&ser_instance_id=b", "is_local=perhaps", "ser_name=", "scope_of_locality=X"]
)
def test_a_wrong_query_is_400(world: Any, query: str) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            for path in (f"{SERVICES}/services", f"{SERVICES}/applications/{app}/services"):
                answer = await world.apply(app, "GET", f"{path}?{query}")
                assert (answer.status_code, answer.json()["code"]) == (400, "query-invalid")
                assert (await world.apply(app, "GET", f"{path}?ser_name=a&is_local=true")).status_code == 200
            answer = await world.operate("GET", f"/platform/v1/hosts?{query}")
            assert (answer.status_code, answer.json()["code"]) == (400, "query-invalid")

    asyncio.run(scenario())


def test_an_application_changes_the_state_of_its_rules_and_nothing_else(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            path = f"{SUPPORT}/applications/{app}/traffic_rules/Web"
            rule = (await world.apply(app, "GET", path)).json()
            for change in (
                {"priority": 0},
                {"trafficFilter": [{"dstAddress": ["203.0.113.11"]}]},
                {"trafficRuleId": "Other"},
            ):
                refused = await world.apply(app, "PUT", path, json={**rule, "state": "ACTIVE", **change})
                assert (refused.status_code, refused.json()["code"]) == (422, "rule-fixed"), change
            assert world.host.traffic == {}
            wish = {**rule, "state": "ACTIVE", "dstInterface": {"interfaceType": "IP", "dstIpAddress": "0.0.0.0"}}  # noqa: S104
            assert (await world.apply(app, "PUT", path, json=wish)).status_code == 200
            assert len(world.host.traffic) == 1
            unknown = await world.apply(app, "GET", f"{SUPPORT}/applications/{app}/traffic_rules/None")
            assert unknown.json()["code"] == "rule-unknown"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"swImageDescriptor": [{"swImage": "transit/hello@sha256:" + "ab" * 32}]}, 403, "tenant-foreign"),
        ({"requestedPermissions": ["platform:admin"]}, 422, "permission-not-grantable"),
        ({"requestedPermissions": ["node:host"]}, 422, "permission-not-grantable"),
        ({"appName": ""}, 400, "appd-invalid"),
        (
            {
                "appDNSRule": [
                    {
                        "dnsRuleId": "n",
                        "domainName": "hello.transit.example",
                        "ipAddressType": "IP_V4",
                        "ipAddress": "203.0.113.10",
                    }
                ]
            },
            422,
            "name-not-of-tenant",
        ),
        (
            {
                "appTrafficRule": [
                    {
                        "trafficRuleId": "r",
                        "filterType": "FLOW",
                        "priority": 1,
                        "trafficFilter": [{"dstAddress": ["203.0.113.18"]}],
                        "action": "DROP",
                    }
                ]
            },
            422,
            "address-not-of-tenant",
        ),
    ],
)
def test_a_descriptor_that_reaches_beyond_its_tenant_is_not_onboarded(
    world: Any, make_descriptor: Callable[..., Any], members: dict[str, Any], status: int, code: str
) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            await world.furnish()
            made = await world.operate("POST", "/app_pkgm/v1/app_packages?tenant=harbour", json={})
            path = f"/app_pkgm/v1/app_packages/{made.json()['id']}/package_content"
            refused = await world.operate("PUT", path, json=make_descriptor(**members))
            assert (refused.status_code, refused.json()["code"]) == (status, code)
            onboarded = await world.operate("PUT", path, json=make_descriptor())
            assert (onboarded.status_code, onboarded.json()["onboardingState"]) == (200, "ONBOARDED")
            again = await world.operate("PUT", path, json=make_descriptor())
            assert (again.status_code, again.json()["code"]) == (409, "package-state")

    asyncio.run(scenario())


def test_a_package_comes_as_an_archive_too(world: Any, make_descriptor: Callable[..., Any]) -> None:
    async def scenario() -> None:
        import json  # noqa: PLC0415

        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("appd.json", json.dumps(make_descriptor()))
        async with world.open(working=False):
            await world.furnish()
            made = await world.operate("POST", "/app_pkgm/v1/app_packages?tenant=harbour", json={})
            path = f"/app_pkgm/v1/app_packages/{made.json()['id']}/package_content"
            for media_type in ("text/plain", "application/json"):
                headers = {"Content-Type": media_type}
                refused = await world.operate("PUT", path, content=content.getvalue(), headers=headers)
                assert refused.status_code == 400
            headers = {"Content-Type": "application/zip"}
            assert (await world.operate("PUT", path, content=content.getvalue(), headers=headers)).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("tenants", {"id": "harbour", "name": "again"}, "already-exists"),
        ("tenants", {"id": "new", "name": "n", "addresses": ["203.0.113.0/24"]}, "grant-overlaps"),
        ("tenants", {"id": "new", "name": "n", "domains": ["deep.harbour.example"]}, "grant-overlaps"),
        ("tenants", {"id": "new", "name": "n", "domains": ["example"]}, "invalid-input"),
        ("tenants", {"id": "new", "name": "n", "colour": "red"}, "invalid-input"),
        ("hosts", {"id": "host-z", "node": "node-a", "netd": "/run/z"}, "already-exists"),
        ("hosts", {"id": "host-z", "node": "node-z", "netd": "run/z"}, "invalid-input"),
    ],
)
def test_tenants_and_hosts_share_nothing(world: Any, path: str, body: dict[str, Any], code: str) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            await world.furnish()
            refused = await world.operate("POST", f"/platform/v1/{path}", json=body)
            assert refused.json()["code"] == code
            good = {"tenants": {"id": "new", "name": "n"}, "hosts": {"id": "h", "node": "n", "netd": "/run/z"}}[path]
            assert (await world.operate("POST", f"/platform/v1/{path}", json=good)).status_code == 201

    asyncio.run(scenario())


def test_a_service_of_another_tenant_or_locality_is_not_found(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            await world.onboard("transit")
            here, there = await world.instantiate(), await world.instantiate(host="host-b")
            foreign = await world.instantiate("transit")
            local = await world.apply(here, "POST", f"{SERVICES}/applications/{here}/services", json=SERVICE)
            wide = {**SERVICE, "serName": "wide", "consumedLocalOnly": False, "scopeOfLocality": "MEC_HOST"}
            await world.apply(here, "POST", f"{SERVICES}/applications/{here}/services", json=wide)
            found = await world.apply(there, "GET", f"{SERVICES}/services", node="node-b")
            assert [(item["serName"], item["isLocal"]) for item in found.json()] == [("wide", False)]
            found = await world.apply(here, "GET", f"{SERVICES}/services")
            assert {item["serName"] for item in found.json()} == {"hello", "wide"}
            found = await world.apply(foreign, "GET", f"{SERVICES}/services", tenant="transit")
            assert found.json() == []
            path = f"{SERVICES}/services/{local.json()['serInstanceId']}"
            hidden = await world.apply(foreign, "GET", path, tenant="transit")
            assert (hidden.status_code, hidden.json()["code"]) == (404, "service-unknown")

    asyncio.run(scenario())


def test_no_list_of_services_is_older_than_the_services_or_of_somebody_else(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            await world.onboard("transit")
            here, there = await world.instantiate(), await world.instantiate(host="host-b")
            foreign = await world.instantiate("transit")
            own = f"{SERVICES}/applications/{here}/services"
            askers = ((here, "harbour", "node-a"), (there, "harbour", "node-b"), (foreign, "transit", "node-a"))

            async def lists(
                query: str = "", askers: tuple[tuple[str, str, str], ...] = askers
            ) -> list[list[tuple[str, str, bool]]]:
                """What each finds, asked twice: each service looks as it does when it is read alone."""
                found = []
                for who, tenant, node in askers:
                    for _ in range(2):
                        answer = await world.apply(who, "GET", f"{SERVICES}/services{query}", tenant=tenant, node=node)
                    for item in answer.json():
                        path = f"{SERVICES}/services/{item['serInstanceId']}"
                        assert (await world.apply(who, "GET", path, tenant=tenant, node=node)).json() == item
                    found.append([(item["serName"], item["state"], item["isLocal"]) for item in answer.json()])
                return found

            assert await lists() == [[], [], []]
            wide = {**SERVICE, "consumedLocalOnly": False, "livenessInterval": 10}
            made = (await world.apply(here, "POST", own, json=wide)).json()
            assert await lists() == [[("hello", "ACTIVE", True)], [("hello", "ACTIVE", False)], []]
            assert await lists("?ser_name=other") == [[], [], []]
            theirs = f"{SERVICES}/applications/{foreign}/services"
            await world.apply(foreign, "POST", theirs, tenant="transit", json={**wide, "serName": "theirs"})
            assert await lists() == [
                [("hello", "ACTIVE", True)],
                [("hello", "ACTIVE", False)],
                [("theirs", "ACTIVE", True)],
            ]
            at = f"{own}/{made['serInstanceId']}"
            await world.apply(here, "PUT", at, json={**wide, "state": "INACTIVE"})
            assert [found[0][1] for found in await lists()] == ["INACTIVE", "INACTIVE", "ACTIVE"]
            world.now += timedelta(seconds=31)  # no heartbeats
            await world.stand("node-b", Standing.TRUSTED, 2)
            assert [found[0][1] for found in await lists()] == ["SUSPENDED"] * 3
            await world.apply(
                here, "PATCH", f"{SERVICES}/services/{made['serInstanceId']}/liveness", json={"state": "ACTIVE"}
            )
            assert [found[0][1] for found in await lists()] == ["INACTIVE", "INACTIVE", "SUSPENDED"]
            await world.stand("node-a", Standing.UNTRUSTED, 2)
            assert [found[0][1] for found in await lists(askers=askers[1:2])] == ["SUSPENDED"]
            await world.stand("node-a", Standing.TRUSTED, 3)
            assert [found[0][1] for found in (await lists())[:2]] == ["INACTIVE", "INACTIVE"]
            await world.apply(here, "DELETE", at)
            await world.apply(here, "POST", own, json={**wide, "serName": "hello"})
            assert [found[0][1] for found in (await lists())[:2]] == ["ACTIVE", "ACTIVE"]
            await world.stand("node-a", Standing.QUARANTINED, 4)
            assert await lists(askers=askers[1:2]) == [[]]

    asyncio.run(scenario())


def test_what_would_not_be_delivered_is_not_taken(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard()
            app = await world.instantiate()
            wishes = {
                SERVICES: {"subscriptionType": "SerAvailabilityNotificationSubscription"},
                SUPPORT: {"subscriptionType": "AppTerminationNotificationSubscription", "appInstanceId": app},
            }
            for base, wish in wishes.items():
                path = f"{base}/applications/{app}/subscriptions"
                refused = await world.apply(
                    app, "POST", path, json={**wish, "callbackReference": "http://10.64.1.10/x"}
                )
                assert (refused.status_code, refused.json()["code"]) == (422, "subscription-unsupported")
                assert (await world.apply(app, "GET", path)).json()["_links"]["subscriptions"] == []
            path = f"/app_lcm/v1/app_instances/{app}/terminate"
            graceful = {"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 5}
            refused = await world.operate("POST", path, json=graceful)
            assert (refused.status_code, refused.json()["code"]) == (422, "termination-unsupported")
            assert (await world.operate("POST", path, json={"terminationType": "FORCEFUL"})).status_code == 202

    asyncio.run(scenario())


def test_an_application_registers_the_services_that_its_descriptor_names(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            await world.furnish()
            await world.onboard(appServiceProduced=[{"serName": "hello", "version": "1.0"}])
            app = await world.instantiate()
            path = f"{SERVICES}/applications/{app}/services"
            other = {**SERVICE, "serName": "traffic-lights"}
            refused = await world.apply(app, "POST", path, json=other)
            assert (refused.status_code, refused.json()["code"]) == (422, "service-not-declared")
            made = await world.apply(app, "POST", path, json=SERVICE)
            assert made.status_code == 201
            refused = await world.apply(app, "PUT", f"{path}/{made.json()['serInstanceId']}", json=other)
            assert (refused.status_code, refused.json()["code"]) == (422, "service-not-declared")

    asyncio.run(scenario())
