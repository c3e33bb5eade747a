"""The service registry on the wire: defaults survive, contradictions are refused."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from umec_platform.errors import QueryInvalid
from umec_platform.services.queries import ServiceQuery, parse_service_query
from umec_platform.services.schemas import FilteringCriteria, LocalityType, ServiceInput

BUSY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TRANSPORT = {
    "id": "t1",
    "name": "REST",
    "type": "REST_HTTP",
    "protocol": "HTTP",
    "version": "2.0",
    "endpoint": {"uris": ["http://10.64.1.10/"]},
}


def service(**members: Any) -> dict[str, Any]:
    document = {"serName": "hello", "version": "1.0", "state": "ACTIVE", "serializer": "JSON"}
    return {**document, "transportInfo": TRANSPORT, **members}


@pytest.mark.parametrize(
    "members",
    [
        {"transportId": "t1"},
        {"transportInfo": None},
        {"serName": ""},
        {"state": "RUNNING"},
        {"serializer": "YAML"},
        {"livenessInterval": -1},
        {"transportInfo": {**TRANSPORT, "endpoint": {}}},
        {"transportInfo": {**TRANSPORT, "endpoint": {"uris": ["x"], "fqdn": ["y"]}}},
        {"transportInfo": {**TRANSPORT, "endpoint": {"addresses": [{"host": "a", "port": 0}]}}},
        {"transportInfo": {**TRANSPORT, "security": {"oAuth2Info": {"grantTypes": []}}}},
    ],
)
def test_a_contradicting_service_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServiceInput.model_validate(service(**members))
    ServiceInput.model_validate(service())


def test_defaults_of_the_standard_survive_a_round_trip() -> None:
    wire = ServiceInput.model_validate(service(vendorNote={"a": 1})).wire()
    assert wire["scopeOfLocality"] == "MEC_HOST"
    assert (wire["consumedLocalOnly"], wire["isLocal"]) == (True, True)
    assert wire["vendorNote"] == {"a": 1}
    assert ServiceInput.model_validate(wire).wire() == wire
    given_false = ServiceInput.model_validate(service(consumedLocalOnly=False, isLocal=False)).wire()
    assert (given_false["consumedLocalOnly"], given_false["isLocal"]) == (False, False)


def test_a_single_grant_type_is_a_list_of_one() -> None:
    security = {"oAuth2Info": {"grantTypes": "OAUTH2_CLIENT_CREDENTIALS"}}
    info = ServiceInput.model_validate(service(transportInfo={**TRANSPORT, "security": security}))
    assert info.wire()["transportInfo"]["security"] == {"oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"]}}


def test_a_filter_names_services_in_one_way() -> None:
    with pytest.raises(ValidationError):
        FilteringCriteria.model_validate({"serNames": ["a"], "serInstanceIds": ["b"]})
    FilteringCriteria.model_validate({"serNames": ["a"], "states": ["ACTIVE"], "isLocal": True})


@pytest.mark.parametrize(
    "parameters",
    [
        [("unknown", "1")],
        [("ser_name", "a"), ("ser_instance_id", "b")],
        [("ser_name", "a"), ("ser_category_id", "b")],
        [("ser_name", "")],
        [("ser_name", "a,,b")],
        [("is_local", "yes")],
        [("is_local", "true"), ("is_local", "false")],
        [("scope_of_locality", "PLANET")],
        [("ser_name", ",".join("x" * 65))],
    ],
)
def test_a_wrong_query_is_refused(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(QueryInvalid) as refusal:
        parse_service_query(parameters)
    assert refusal.value.code == "query-invalid"


def test_a_query_says_what_is_looked_for() -> None:
    assert parse_service_query([]) == ServiceQuery()
    query = parse_service_query(
        [("ser_name", "a,b"), ("ser_name", "c"), ("is_local", "true"), ("scope_of_locality", "ZONE")]
    )
    assert query == ServiceQuery(names=frozenset("abc"), is_local=True, scope=LocalityType.ZONE)


@BUSY_MACHINE
@given(st.lists(st.tuples(st.one_of(st.text(), st.sampled_from(["ser_name", "is_local"])), st.text()), max_size=4))
def test_any_query_is_read_or_refused(parameters: list[tuple[str, str]]) -> None:
    try:
        parse_service_query(parameters)
    except QueryInvalid:
        return
