"""Every text that a tenant or an application can send, found in the models themselves, with text for every interpreter
that lies behind: it is refused, or kept as the text that it is, and never comes to a host.
"""

import asyncio
import json
from ipaddress import IPv4Address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from umec_core.errors import UmecError
from umec_platform.demo.attacks.fields import PAYLOADS, TRACE, Text, texts
from umec_platform.packages.appd import AppD, parse_appd
from umec_platform.packages.service import check_appd
from umec_platform.rules.confine import Confines
from umec_platform.rules.translate import to_netd_dns, to_netd_traffic

TENANT = SimpleNamespace(id="harbour", addresses=["203.0.113.8/29"], domains=["harbour.example"])
OWN = IPv4Address("10.64.1.10")
CONFINES = Confines(
    tenant="harbour",
    instance="one",
    own=OWN,
    siblings=frozenset({OWN}),
    networks=(ip_network("203.0.113.8/29"),),
    domains=("harbour.example",),
)
REFUSED = {"appd-invalid", "rule-invalid", "rule-unsupported", "permission-not-grantable"}
NOT_HERE = {"tag", "srcTunnelAddress", "tgtTunnelAddress", "srcTunnelPort", "dstTunnelPort", "tunnelInfo"} | {
    "srcMacAddress",
    "dstMacAddress",
}
"""Members that this data plane cannot match: with any text they are refused."""


def good(make_descriptor: Any) -> dict[str, Any]:
    """A descriptor that is taken, with sources and source ports, which the example leaves out."""
    appd: dict[str, Any] = make_descriptor()
    appd["appTrafficRule"][0]["trafficFilter"][0] |= {"srcAddress": ["192.0.2.0/25"], "srcPort": ["1024-65535"]}
    return appd


def to_netd(document: dict[str, Any]) -> str:
    """What a host is told of a descriptor; raises what refuses it."""
    appd = parse_appd(json.dumps(document).encode())
    check_appd(appd, TENANT)  # type: ignore[arg-type]
    told = [to_netd_traffic(rule, CONFINES) for rule in appd.app_traffic_rule]
    return json.dumps(
        [one.model_dump() for one in [*told, *(to_netd_dns(rule, CONFINES) for rule in appd.app_dns_rule)]]
    )


def judged(document: dict[str, Any]) -> tuple[str | None, str]:
    """The code of the refusal, if it is refused, and what is told: to the host, or to whoever sent it."""
    try:
        return None, to_netd(document)
    except UmecError as refused:
        return refused.code, f"{refused.detail} {refused.advice}"


def test_every_text_of_a_descriptor_is_found(make_descriptor: Any) -> None:
    places = {text.place for text in texts(AppD, good(make_descriptor))}
    assert {
        ("appDId",),
        ("swImageDescriptor", 0, "swImage"),
        ("appTrafficRule", 0, "trafficFilter", 0, "srcPort", 0),
        ("appTrafficRule", 0, "dstInterface", 0, "dstIpAddress"),
        ("appTrafficRule", 0, "dstInterface", 0, "tunnelInfo", "tunnelType"),
        ("appDNSRule", 0, "domainName"),
        ("appServiceProduced", 0, "serCategory", "href"),
        ("appServiceProduced", 0, "transportsSupported", 0, "transport", "anything"),
        ("virtualComputeDescriptor", "anything"),
        ("requestedPermissions", 0),
        ("x-of-no-standard",),
    } <= places
    assert len(places) > 60


def test_with_a_good_text_every_place_of_a_descriptor_is_taken(make_descriptor: Any) -> None:
    for text in texts(AppD, good(make_descriptor)):
        if NOT_HERE.isdisjoint(text.place):
            assert TRACE not in to_netd(text.build(text.good)), text.place


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_of_a_descriptor_comes_to_a_host(make_descriptor: Any, payload: str) -> None:
    for text in texts(AppD, good(make_descriptor)):
        code, told = judged(text.build(text.good + payload))
        assert code in {None, *REFUSED}, text.place
        assert TRACE not in told, text.place


def described(world: Any) -> dict[str, Any]:
    """What both listeners offer: OpenAPI paths."""
    app = FastAPI()
    for router in [*world.service.management_routers, *world.service.mp1_routers]:
        app.include_router(router)
    paths: dict[str, Any] = app.openapi()["paths"]
    return paths


def bodies(world: Any) -> dict[tuple[str, str], type[BaseModel]]:
    """The model of the body of every endpoint that has one, by method and path."""
    found = {}
    for path, methods in described(world).items():
        for method, operation in methods.items():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"]["$ref"].rpartition("/")[2]
                found[method.upper(), path] = models()[name]
    return found


def models(root: type[BaseModel] = BaseModel) -> dict[str, type[BaseModel]]:
    """Every model of the platform's own interfaces, by name; netd has some of the same names."""
    ours = root.__module__.startswith("umec_platform.") and ".netd" not in root.__module__
    found = {root.__name__: root} if ours else {}
    for model in root.__subclasses__():
        found |= models(model)
    return found


async def furnished(world: Any) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Names for the paths of endpoints, and good documents by the name of their model."""
    await world.furnish()
    package = await world.onboard()
    app = await world.instantiate()
    mp1 = "/mec_app_support/v1/applications"
    rule = (await world.apply(app, "GET", f"{mp1}/{app}/traffic_rules/Web")).json()
    name = (await world.apply(app, "GET", f"{mp1}/{app}/dns_rules/Name")).json()
    endpoint = {"uris": ["http://10.64.1.10/"]}
    transport = {
        "id": "t1",
        "name": "REST",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": "2",
        "endpoint": endpoint,
    }
    service = {"serName": "hello", "version": "1", "state": "ACTIVE", "serializer": "JSON", "transportInfo": transport}
    made = await world.apply(app, "POST", f"/mec_service_mgmt/v1/applications/{app}/services", json=service)
    names = {"instance": app, "package": package, "service": made.json()["serInstanceId"], "host": "host-a"}
    return names, {"TrafficRule": rule, "DnsRule": name, "ServiceInput": service}


def path_of(template: str, names: dict[str, str]) -> str:
    kind = "Name" if "dns_rules" in template else "Web"
    return template.format(**names, rule=kind, operation="none", subscription="none", tenant="harbour")


async def send(world: Any, method: str, path: str, app: str, **arguments: Any) -> Any:
    """As the application at Mp1, as the operator elsewhere."""
    if path.startswith("/mec_"):
        return await world.apply(app, method, path, **arguments)
    return await world.operate(method, path, **arguments)


def test_no_text_of_any_body_comes_to_a_host(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            names, documents = await furnished(world)
            taken = refused = 0
            for (method, template), model in bodies(world).items():
                path = path_of(template, names)
                for number, text in enumerate(texts(model, documents.get(model.__name__))):
                    payload = text.good + PAYLOADS[number % len(PAYLOADS)]
                    answer = await send(world, method, path, names["instance"], json=text.build(payload))
                    assert answer.status_code < 500, (method, template, text.place, answer.text)
                    taken += answer.is_success
                    refused += answer.is_error
                    if answer.is_error:
                        assert TRACE not in answer.text, (method, template, text.place)
                        assert answer.json()["code"], (method, template)
                    elif TRACE in answer.text:
                        assert found_at(answer.json(), text) == payload, (method, template, text.place)
            assert min(taken, refused) > 20
            await world.apply(names["instance"], "PUT", path_of(RULE, names), json=documents["TrafficRule"])
            hosts = [world.host, world.other_host]
            assert any(host.instances for host in hosts)
            assert TRACE not in repr([(host.traffic, host.dns, host.instances, host.networks) for host in hosts])

    asyncio.run(scenario())


RULE = "/mec_app_support/v1/applications/{instance}/traffic_rules/{rule}"


def found_at(document: Any, text: Text) -> Any:
    """What an answer has where a text was put."""
    for step in text.place:
        document = document[step]
    return document


def test_no_text_of_a_path_or_a_query_is_more_than_a_name(world: Any) -> None:
    async def scenario() -> None:
        async with world.open():
            names, _ = await furnished(world)
            templates = [path for path, methods in described(world).items() if "{" in path and "get" in methods]
            assert len(templates) > 10
            for payload in PAYLOADS:
                quoted = "".join(f"%{octet:02x}" for octet in payload.encode())
                for template in templates:
                    path = "/".join(quoted if part.startswith("{") else part for part in template.split("/"))
                    answer = await send(world, "GET", path, names["instance"])
                    assert answer.status_code in {400, 403, 404}, (template, payload, answer.text)
                    assert TRACE not in answer.text
                query = f"/mec_service_mgmt/v1/services?ser_name={quoted}"
                answer = await send(world, "GET", query, names["instance"])
                assert answer.status_code == 400 or answer.json() == []
                assert TRACE not in answer.text

    asyncio.run(scenario())
