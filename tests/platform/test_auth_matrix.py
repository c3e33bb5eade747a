"""Every endpoint, asked by nobody, by the wrong ones and by the right one."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.routing import Route

MANAGEMENT: Final = "https://authority.test:8443"
MP1: Final = "https://authority.test:8444"
SERVICES: Final = "/mec_service_mgmt/v1"
SUPPORT: Final = "/mec_app_support/v1"
NOBODY: Final = "00000000-0000-4000-8000-000000000000"

SERVICE: Final = {
    "serName": "hello",
    "version": "1.0",
    "state": "ACTIVE",
    "serializer": "JSON",
    "livenessInterval": 0,
    "transportInfo": {
        "id": "t1",
        "name": "REST",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": "1.1",
        "endpoint": {"uris": ["http://10.64.1.10/"]},
    },
}
AVAILABILITY: Final = {
    "subscriptionType": "SerAvailabilityNotificationSubscription",
    "callbackReference": "http://10.64.1.10/news",
}
TERMINATION: Final = {
    "subscriptionType": "AppTerminationNotificationSubscription",
    "callbackReference": "http://10.64.1.10/end",
    "appInstanceId": "{instance}",
}


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, what it needs, and what the right caller gets. `{…}` are filled in by the test."""

    method: str
    path: str
    scope: str
    good: int
    body: Any = None
    shared: bool = False
    """Other instances of the tenant may do this too."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


own = f"{SERVICES}/applications/{{instance}}"
support = f"{SUPPORT}/applications/{{instance}}"
MP1_ENDPOINTS: Final = [
    Endpoint("GET", f"{SERVICES}/services", "mec:services.read", 200, shared=True),
    Endpoint("GET", f"{SERVICES}/services/{{service}}", "mec:services.read", 200, shared=True),
    Endpoint("GET", f"{SERVICES}/services/{{service}}/liveness", "mec:services.read", 200),
    Endpoint("PATCH", f"{SERVICES}/services/{{service}}/liveness", "mec:services.write", 204, {"state": "ACTIVE"}),
    Endpoint("GET", f"{SERVICES}/transports", "mec:services.read", 200, shared=True),
    Endpoint("GET", f"{own}/services", "mec:services.read", 200),
    Endpoint("POST", f"{own}/services", "mec:services.write", 201, SERVICE),
    Endpoint("GET", f"{own}/services/{{service}}", "mec:services.read", 200),
    Endpoint("PUT", f"{own}/services/{{service}}", "mec:services.write", 200, SERVICE),
    Endpoint("DELETE", f"{own}/services/{{service}}", "mec:services.write", 204),
    Endpoint("GET", f"{own}/subscriptions", "mec:services.read", 200),
    Endpoint("POST", f"{own}/subscriptions", "mec:services.read", 422, AVAILABILITY),
    Endpoint("GET", f"{own}/subscriptions/{{availability}}", "mec:services.read", 404),
    Endpoint("DELETE", f"{own}/subscriptions/{{availability}}", "mec:services.read", 404),
    Endpoint("POST", f"{support}/confirm_ready", "mec:app", 204, {"indication": "READY"}),
    Endpoint("POST", f"{support}/confirm_termination", "mec:app", 409, {"operationAction": "TERMINATING"}),
    Endpoint("GET", f"{SUPPORT}/registrations/{{instance}}", "mec:app", 200),
    Endpoint("GET", f"{SUPPORT}/timing/timing_caps", "mec:app", 200, shared=True),
    Endpoint("GET", f"{SUPPORT}/timing/current_time", "mec:app", 200, shared=True),
    Endpoint("GET", f"{support}/traffic_rules", "mec:traffic", 200),
    Endpoint("GET", f"{support}/traffic_rules/Web", "mec:traffic", 200),
    Endpoint("PUT", f"{support}/traffic_rules/Web", "mec:traffic", 200, "traffic"),
    Endpoint("GET", f"{support}/dns_rules", "mec:dns", 200),
    Endpoint("GET", f"{support}/dns_rules/Name", "mec:dns", 200),
    Endpoint("PUT", f"{support}/dns_rules/Name", "mec:dns", 200, "dns"),
    Endpoint("GET", f"{support}/subscriptions", "mec:app", 200),
    Endpoint("POST", f"{support}/subscriptions", "mec:app", 422, TERMINATION),
    Endpoint("GET", f"{support}/subscriptions/{{termination}}", "mec:app", 404),
    Endpoint("DELETE", f"{support}/subscriptions/{{termination}}", "mec:app", 404),
]
NODE_IMAGE: Final = {"repository": "harbour/street-node", "digest": "sha256:" + "02" * 32, "node": "node-a"}
NEW_HOST: Final = {"id": "host-c", "node": "node-c", "netd": "/run/c"}
MANAGEMENT_ENDPOINTS: Final = [
    Endpoint("POST", "/platform/v1/tenants", "platform:admin", 201, {"id": "third", "name": "Third"}),
    Endpoint("GET", "/platform/v1/tenants", "platform:admin", 200),
    Endpoint("POST", "/platform/v1/hosts", "platform:admin", 201, NEW_HOST),
    Endpoint("GET", "/platform/v1/hosts", "platform:admin", 200),
    Endpoint("PUT", "/platform/v1/node-images", "platform:admin", 200, NODE_IMAGE),
    Endpoint("GET", "/platform/v1/node-images", "platform:admin", 200),
    Endpoint("DELETE", "/platform/v1/node-images?target=node/node-a", "platform:admin", 204),
    Endpoint("GET", "/platform/v1/audit", "platform:admin", 200),
    Endpoint("GET", "/platform/v1/instances/{instance}/log", "platform:tenant", 200),
    Endpoint("GET", "/platform/v1/services", "platform:tenant", 200, shared=True),
    Endpoint("GET", "/platform/v1/rules", "platform:tenant", 200, shared=True),
    Endpoint("POST", "/app_pkgm/v1/app_packages", "platform:tenant", 201, {}, shared=True),
    Endpoint("GET", "/app_pkgm/v1/app_packages", "platform:tenant", 200, shared=True),
    Endpoint("GET", "/app_pkgm/v1/app_packages/{package}", "platform:tenant", 200),
    Endpoint("GET", "/app_pkgm/v1/app_packages/{package}/appd", "platform:tenant", 200),
    Endpoint("PUT", "/app_pkgm/v1/app_packages/{empty}/package_content", "platform:tenant", 200, "appd"),
    Endpoint("DELETE", "/app_pkgm/v1/app_packages/{empty}", "platform:tenant", 204),
    Endpoint("POST", "/app_lcm/v1/app_instances", "platform:tenant", 201, {"appDId": "hello-1"}),
    Endpoint("GET", "/app_lcm/v1/app_instances", "platform:tenant", 200, shared=True),
    Endpoint("GET", "/app_lcm/v1/app_instances/{instance}", "platform:tenant", 200),
    Endpoint("POST", "/app_lcm/v1/app_instances/{idle}/instantiate", "platform:tenant", 202, {}),
    Endpoint("DELETE", "/app_lcm/v1/app_instances/{idle}", "platform:tenant", 409),
    Endpoint("GET", "/app_lcm/v1/app_lcm_op_occs", "platform:tenant", 200, shared=True),
    Endpoint("GET", "/app_lcm/v1/app_lcm_op_occs/{operation}", "platform:tenant", 200),
    Endpoint("POST", "/app_lcm/v1/app_instances/{instance}/terminate", "platform:tenant", 202, {}),
]
NODE_REPORT: Final = dict.fromkeys(("image", "running", "confirmed", "phase", "version", "manifest", "digest", "code"))
NODE_REPORT["detail"] = ""
NODE_ENDPOINTS: Final = [
    Endpoint("POST", "/platform/v1/relay", "node:host", 201),
    Endpoint("GET", "/platform/v1/relay/{session}/requests", "node:host", 409),
    Endpoint("POST", "/platform/v1/relay/{session}/answers", "node:host", 400),
    Endpoint("GET", "/platform/v1/node-image", "node:host", 200),
    Endpoint("POST", "/platform/v1/node-image", "node:host", 204, NODE_REPORT),
]
"""Those of a node itself: who else may not is in test_host_relays, where callers have certificates."""


async def _prepare(world: Any) -> dict[str, str]:
    """Make one of everything; returns what `{…}` stands for."""
    await world.furnish()
    package = await world.onboard()
    instance = await world.instantiate()
    names = {
        "instance": instance,
        "package": package,
        "idle": "",
        "service": "",
        "availability": "none",
        "termination": "none",
    }
    made = await world.apply(instance, "POST", f"{SERVICES}/applications/{instance}/services", json=SERVICE)
    names["service"] = made.json()["serInstanceId"]
    made = await world.operate("POST", "/app_lcm/v1/app_instances?tenant=harbour", json={"appDId": "hello-1"})
    names["idle"] = made.json()["id"]
    made = await world.operate("POST", "/app_pkgm/v1/app_packages?tenant=harbour", json={})
    names["empty"] = made.json()["id"]
    made = await world.operate("GET", "/app_lcm/v1/app_lcm_op_occs")
    names["operation"] = made.json()[0]["id"]
    return names


async def _body(world: Any, endpoint: Endpoint, names: dict[str, str], make_descriptor: Any) -> dict[str, Any]:
    if endpoint.body is None:
        return {}
    instance = names["instance"]
    if endpoint.body in {"traffic", "dns"} if isinstance(endpoint.body, str) else False:
        rule = (await world.apply(instance, "GET", endpoint.path.format(**names))).json()
        return {"json": {**rule, "state": "ACTIVE"}}
    if endpoint.body == "appd":
        return {"json": make_descriptor(appDId="hello-2")}
    if endpoint.body is TERMINATION:
        return {"json": {**TERMINATION, "appInstanceId": instance}}
    return {"json": endpoint.body}


def test_every_endpoint_of_mp1_answers_its_application_only(world: Any, make_descriptor: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            names = await _prepare(world)
            instance = names["instance"]
            for endpoint in MP1_ENDPOINTS:
                url = MP1 + endpoint.path.format(**names)
                body = await _body(world, endpoint, names, make_descriptor)

                async def ask(token: str | None, where: str = url, what: str = endpoint.method, **with_: Any) -> Any:
                    answer = await world.call(what, where, token, **with_)
                    return answer.status_code, answer.json().get("code") if answer.status_code >= 400 else None, answer

                status, code, answer = await ask(None, **body)
                assert (status, code) == (401, "token-missing"), endpoint
                assert answer.headers["content-type"] == "application/problem+json", endpoint
                assert "DPoP" in answer.headers["www-authenticate"], endpoint
                every = {"mec:services.read", "mec:services.write", "mec:app", "mec:traffic", "mec:dns"}
                others = " ".join(sorted(every - {endpoint.scope}))
                token = world.app_token(instance, "harbour", scope=others)
                status, code, _ = await ask(token, **body)
                assert (status, code) == (403, "token-scope"), endpoint
                management = world.token(f"{MANAGEMENT}/platform/v1", endpoint.scope, tenant="harbour")
                status, code, _ = await ask(management, **body)
                assert (status, code) == (401, "token-audience"), endpoint
                for tenant in ("harbour", "transit"):
                    status, code, answer = await ask(world.app_token(NOBODY, tenant, scope=endpoint.scope), **body)
                    if endpoint.shared and tenant == "harbour":
                        assert status == endpoint.good, endpoint
                    elif endpoint.shared:
                        assert status == 404 or (status == 200 and "hello" not in answer.text), endpoint
                    else:
                        assert (status, code) in {(403, "instance-foreign"), (404, "service-unknown")}, endpoint
                status, code, _ = await ask(world.app_token(instance, "harbour", scope=endpoint.scope), **body)
                assert status == endpoint.good, (endpoint, code)
                if endpoint.method == "DELETE" and "/services/" in endpoint.path:
                    path = f"{SERVICES}/applications/{instance}/services"
                    made = await world.apply(instance, "POST", path, json=SERVICE)
                    names["service"] = made.json()["serInstanceId"]

    asyncio.run(scenario())


def test_every_endpoint_of_management_answers_its_tenant_and_the_operator_only(
    world: Any, make_descriptor: Any
) -> None:
    async def scenario() -> None:
        async with world.open():
            names = await _prepare(world)
            audience = f"{MANAGEMENT}/platform/v1"
            for endpoint in MANAGEMENT_ENDPOINTS:
                url = MANAGEMENT + endpoint.path.format(**names)
                body = await _body(world, endpoint, names, make_descriptor)
                admin = endpoint.scope == "platform:admin"

                async def ask(token: str | None, where: str = url, what: str = endpoint.method, **with_: Any) -> Any:
                    answer = await world.call(what, where, token, **with_)
                    return answer.status_code, answer.json().get("code") if answer.status_code >= 400 else None, answer

                status, code, _ = await ask(None, **body)
                assert (status, code) == (401, "token-missing"), endpoint
                wrong = "platform:tenant images:push" if admin else "mec:app images:push"
                status, code, _ = await ask(world.token(audience, wrong, tenant="harbour"), **body)
                assert (status, code) == (403, "token-scope"), endpoint
                status, code, _ = await ask(world.app_token(names["instance"], "harbour"), **body)
                assert (status, code) == (401, "token-audience"), endpoint
                if not admin:
                    foreign = world.token(audience, "platform:tenant", tenant="transit")
                    status, code, answer = await ask(foreign, **body)
                    if endpoint.shared:
                        assert status == endpoint.good, endpoint
                        assert "harbour" not in answer.text, endpoint
                    else:
                        assert status == 404, endpoint
                    no_tenant = world.token(audience, "platform:tenant")
                    status, code, _ = await ask(no_tenant, **body)
                    assert (status, code) == (403, "token-scope"), endpoint
                right = world.token(audience, endpoint.scope, **({} if admin else {"tenant": "harbour"}))
                status, code, _ = await ask(right, **body)
                assert status == endpoint.good, (endpoint, code)
                if endpoint.method == "PUT":  # the next one removes an empty package
                    made = await world.operate("POST", "/app_pkgm/v1/app_packages?tenant=harbour", json={})
                    names["empty"] = made.json()["id"]

    asyncio.run(scenario())


def test_every_endpoint_of_a_node_answers_nobody_else(world: Any) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            await world.furnish()
            audience = f"{MANAGEMENT}/platform/v1"
            for endpoint in NODE_ENDPOINTS:
                url = MANAGEMENT + endpoint.path.format(session="0" * 32)
                callers = [
                    (None, (401, "token-missing")),
                    (world.token(audience, "platform:admin"), (403, "token-scope")),
                    (world.token(audience, "platform:tenant", tenant="harbour"), (403, "token-scope")),
                    (world.app_token("one", "harbour", scope="node:host"), (401, "token-audience")),
                    (world.token(audience, endpoint.scope), (403, "not-a-node")),
                    (world.token(audience, endpoint.scope, node="node-a", generation=1), (403, "not-a-node")),
                ]
                for token, expected in callers:
                    body = {} if endpoint.body is None else {"json": endpoint.body}
                    answer = await world.call(endpoint.method, url, token, **body)
                    assert (answer.status_code, answer.json()["code"]) == expected, endpoint

    asyncio.run(scenario())


def test_the_matrix_knows_every_endpoint(world: Any) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            app, plain = FastAPI(), []
            for router in [*world.service.management_routers, *world.service.mp1_routers]:
                app.include_router(router)
                plain += [route for route in router.routes if type(route) is Route]
        paths = app.openapi()["paths"]
        served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
        served |= {(method, route.path) for route in plain for method in route.methods or ()}
        known = {_shape(item) for item in [*MP1_ENDPOINTS, *MANAGEMENT_ENDPOINTS, *NODE_ENDPOINTS]}
        aliases = {(method, path.replace("/v2/", "/v1/")) for method, path in served}
        assert {(method, _anonymous(path)) for method, path in aliases} == known

    asyncio.run(scenario())


def _shape(endpoint: Endpoint) -> tuple[str, str]:
    path = endpoint.path.replace("/Web", "/{rule}").replace("/Name", "/{rule}")
    return endpoint.method, _anonymous(path.partition("?")[0])


def _anonymous(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


@pytest.mark.parametrize("tenant", ["transit", "nobody"])
def test_a_tenant_cannot_act_for_another(world: Any, tenant: str) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            await world.furnish()
            token = world.token(f"{MANAGEMENT}/platform/v1", "platform:tenant", tenant="harbour")
            url = f"{MANAGEMENT}/app_pkgm/v1/app_packages?tenant="
            refused = await world.call("POST", url + tenant, token, json={})
            assert (refused.status_code, refused.json()["code"]) == (403, "tenant-foreign")
            assert (await world.call("POST", url + "harbour", token, json={})).status_code == 201

    asyncio.run(scenario())
