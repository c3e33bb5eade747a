"""Where each check of the platform's pure parts begins and ends: the last value taken, and the first that is not."""

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from umec_core.errors import UmecError
from umec_core.principal import Principal
from umec_platform import api
from umec_platform.errors import QueryInvalid
from umec_platform.packages import archive
from umec_platform.packages.appd import MAX_APPD, parse_appd, parse_image_reference
from umec_platform.packages.archive import read_package
from umec_platform.packages.service import check_appd
from umec_platform.rules.confine import Confines, check_domain, parse_network
from umec_platform.rules.schemas import DnsRule, TrafficRule
from umec_platform.rules.translate import settle_dns_rule, to_netd_dns, to_netd_traffic
from umec_platform.services.queries import ServiceQuery, parse_service_query
from umec_platform.services.schemas import FilteringCriteria, LocalityType, ServiceInput
from umec_platform.services.view import KeptList, Lists, Showcase, mark, next_silence, shown_state
from umec_platform.tables.services import ServiceRow
from umec_platform.tables.tenants import TenantRow
from umec_platform.tenants.service import _nested

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OWN, SIBLING = IPv4Address("10.64.1.10"), IPv4Address("10.64.1.11")
CONFINES = Confines(
    tenant="harbour",
    instance="instance-1",
    own=OWN,
    siblings=frozenset({OWN, SIBLING}),
    networks=(ip_network("203.0.113.8/29"), ip_network("2001:db8::/64")),
    domains=("harbour.example",),
)
DIGEST = "sha256:" + "ab" * 32


def code_of(ask: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UmecError) as refused:
        ask(*args, **kwargs)
    return refused.value.code


def traffic(**members: Any) -> TrafficRule:
    document = {
        "trafficRuleId": "Rule1",
        "filterType": "FLOW",
        "priority": 1,
        "trafficFilter": [{"dstAddress": ["203.0.113.10"]}],
        "action": "FORWARD_DECAPSULATED",
        "dstInterface": [{"interfaceType": "IP"}],
        "state": "ACTIVE",
    }
    return TrafficRule.model_validate({**document, **members})


def dns(**members: Any) -> DnsRule:
    document = {
        "dnsRuleId": "Name1",
        "domainName": "hello.harbour.example",
        "ipAddressType": "IP_V4",
        "ipAddress": "203.0.113.10",
        "state": "ACTIVE",
    }
    return DnsRule.model_validate({**document, **members})


def caller(**members: Any) -> Principal:
    fields: dict[str, Any] = {
        "subject": "who", "client_id": "who", "scopes": frozenset({"platform:tenant"}), "audience": "a", "tenant": None,
        "node": None, "generation": None, "instance": None, "expires": NOW, "jti": "j", "binding": "dpop",
    }  # fmt: skip
    return Principal(**{**fields, **members})


def test_who_acts_for_whom() -> None:
    admin, tenant = frozenset({api.ADMIN}), frozenset({api.TENANT})
    assert api.acting_tenant(caller(scopes=admin), None) is None
    assert api.acting_tenant(caller(scopes=admin), "harbour") == "harbour"
    assert api.acting_tenant(caller(scopes=tenant, tenant="harbour"), None) == "harbour"
    assert api.acting_tenant(caller(scopes=tenant, tenant="harbour"), "harbour") == "harbour"
    assert code_of(api.acting_tenant, caller(scopes=tenant, tenant="harbour"), "transit") == "tenant-foreign"
    assert code_of(api.acting_tenant, caller(scopes=admin, tenant="harbour"), "transit") == "tenant-foreign"
    assert code_of(api.acting_tenant, caller(scopes=tenant), "harbour") == "token-scope"
    assert code_of(api.acting_tenant, caller(scopes=frozenset({"mec:app"}), tenant="harbour"), None) == "token-scope"
    assert api.same_tenant(caller(tenant="harbour")) == "harbour"
    assert code_of(api.same_tenant, caller()) == "tenant-foreign"
    api.own_instance(caller(instance="one"), "one")
    for other in (caller(instance="two"), caller()):
        assert code_of(api.own_instance, other, "one") == "instance-foreign"


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        ("a" * 63 + ".example", "a" * 64 + ".example"),
        (".".join(["a" * 49] * 5) + ".aaa", ".".join(["a" * 49] * 5) + ".aaaa"),
        ("harbour.example", "example"),
        ("a-b.example", "-ab.example"),
        ("a.1x", "a.1"),
    ],
)
def test_where_a_host_name_ends(taken: str, refused: str) -> None:
    assert check_domain(taken) == taken
    assert code_of(check_domain, refused) == "rule-invalid"


def test_addresses_of_a_tenant_and_of_nobody_else() -> None:
    for text in ("203.0.113.8/29", "203.0.113.15", "10.64.1.10", "2001:db8::/64"):
        CONFINES.check_network(parse_network(text))
    for text in ("203.0.113.8/28", "203.0.113.16", "10.64.1.11", "2001:db8::/63", "::/0"):
        with pytest.raises(UmecError):
            CONFINES.check_network(parse_network(text))
    CONFINES.check_target(SIBLING)
    assert code_of(CONFINES.check_target, IPv4Address("10.64.1.12")) == "address-not-of-tenant"
    for name in ("harbour.example", "a.harbour.example"):
        CONFINES.check_name(name)
    assert code_of(CONFINES.check_name, "xharbour.example") == "name-not-of-tenant"
    assert parse_network("fe80::1").version == 6
    assert code_of(parse_network, "fe80::1%eth0") == "rule-invalid"


def within(**members: Any) -> dict[str, Any]:
    return {"trafficFilter": [{"dstAddress": ["203.0.113.10"], **members}]}


MANY = [f"203.0.113.{8 + number % 8}" for number in range(17)]


@pytest.mark.parametrize(
    ("taken", "refused", "code"),
    [
        (within(dstPort=["65535"]), within(dstPort=["65536"]), "rule-invalid"),
        (within(dstPort=["00080"]), within(dstPort=["000080"]), "rule-invalid"),
        (within(dstPort=["80"]), within(dstPort=["8o"]), "rule-invalid"),
        (within(dstPort=["80"]), within(dstPort=["\u0661"]), "rule-invalid"),
        (within(dstPort=["80-80"]), within(dstPort=["81-80"]), "rule-invalid"),
        (within(dstPort=["1"] * 16), within(dstPort=["1"] * 17), "rule-unsupported"),
        (within(dstAddress=MANY[:16]), within(dstAddress=MANY), "rule-unsupported"),
        (within(protocol=["tcp"]), within(protocol=["sctp"]), "rule-unsupported"),
        (within(dstPort=["1"], protocol=["udp"]), within(dstPort=["1"], protocol=["udp", "icmp"]), "rule-invalid"),
        (within(srcAddress=["198.51.100.7"]), within(srcAddress=["2001:db8::1"]), "rule-unsupported"),
        (within(), within(dSCP=0), "rule-unsupported"),
        (within(), within(dstTunnelPort=["1"]), "rule-unsupported"),
        (
            {
                **within(srcAddress=["10.64.1.10"], dstAddress=["198.51.100.7"]),
                "action": "DROP",
                "dstInterface": None,
            },
            within(srcAddress=["10.64.1.10"], dstAddress=["198.51.100.7"]),
            "foreign",
        ),
        (
            {"trafficFilter": [{"dstAddress": ["203.0.113.10"]}] * 16},
            {"trafficFilter": [{"dstAddress": ["203.0.113.10"]}] * 17},
            "rule-unsupported",
        ),
        ({"filterType": "FLOW"}, {"filterType": "PACKET"}, "rule-unsupported"),
        (
            {"dstInterface": {"interfaceType": "IP"}},
            {"dstInterface": {"interfaceType": "TUNNEL", "dstIpAddress": str(OWN)}},
            "rule-unsupported",
        ),
        (
            {"dstInterface": {"interfaceType": "IP", "dstIpAddress": str(SIBLING)}},
            {"dstInterface": {"interfaceType": "IP", "tunnelInfo": {"tunnelType": "GRE"}}},
            "rule-unsupported",
        ),
        (
            {"dstInterface": {"interfaceType": "IP"}},
            {"dstInterface": {"interfaceType": "MAC"}},
            "rule-unsupported",
        ),
        (
            {"action": "PASSTHROUGH", "dstInterface": None},
            {"action": "PASSTHROUGH", "dstInterface": {"interfaceType": "IP"}},
            "rule-unsupported",
        ),
        (
            {"action": "DUPLICATE_DECAPSULATED", "filterType": "PACKET", "dstInterface": [{"interfaceType": "IP"}] * 2},
            {
                "action": "DUPLICATE_DECAPSULATED",
                "dstInterface": [{"interfaceType": "IP"}, {"interfaceType": "IP", "dstIpAddress": str(SIBLING)}],
            },
            "rule-unsupported",
        ),
        (
            {"action": "DUPLICATE_DECAPSULATED", "dstInterface": [{"interfaceType": "IP"}] * 2},
            {"action": "DUPLICATE_DECAPSULATED", "dstInterface": [{"interfaceType": "IP"}, {"interfaceType": "MAC"}]},
            "rule-unsupported",
        ),
    ],
)
def test_what_of_a_traffic_rule_is_enforced(taken: dict[str, Any], refused: dict[str, Any], code: str) -> None:
    assert to_netd_traffic(traffic(**taken), CONFINES).tenant == "harbour"
    wanted = "address-not-of-tenant" if code == "foreign" else code
    assert code_of(to_netd_traffic, traffic(**refused), CONFINES) == wanted


def test_a_target_that_is_nobody_and_a_filter_without_any_address() -> None:
    foreign = {"dstInterface": {"interfaceType": "IP", "dstIpAddress": "10.64.1.12"}}
    assert code_of(to_netd_traffic, traffic(**foreign), CONFINES) == "address-not-of-tenant"
    nothing = {"trafficFilter": [{"protocol": ["tcp"]}]}
    with pytest.raises(UmecError) as refused:
        to_netd_traffic(traffic(**nothing), CONFINES)
    assert (refused.value.code, refused.value.advice) == ("address-not-of-tenant", "Name an address of the tenant.")


@pytest.mark.parametrize(
    ("action", "numbers"),
    [
        ("DROP", {0}),
        ("FORWARD_DECAPSULATED", {1}),
        ("PASSTHROUGH", {0, 1}),
        ("DUPLICATE_ENCAPSULATED", {2}),
    ],
)
def test_how_many_interfaces_an_action_has(action: str, numbers: set[int]) -> None:
    for number in range(4):
        try:
            traffic(action=action, dstInterface=[{"interfaceType": "IP"}] * number)
        except ValidationError:
            assert number not in numbers
        else:
            assert number in numbers


def test_names_families_and_texts_of_dns_rules() -> None:
    assert to_netd_dns(dns(), CONFINES).kind == "A"
    six = {"ipAddressType": "IP_V6", "ipAddress": "2001:db8::1"}
    assert to_netd_dns(dns(**six), CONFINES).kind == "AAAA"
    for wrong in ({"ipAddressType": "IP_V6"}, {"ipAddress": "2001:db8::1"}, {"ipAddress": 7}):
        with pytest.raises(ValidationError):
            dns(**wrong)
    assert code_of(to_netd_dns, dns(domainName="hello.transit.example"), CONFINES) == "name-not-of-tenant"
    assert code_of(to_netd_dns, dns(ipAddress="203.0.113.16"), CONFINES) == "address-not-of-tenant"
    any_four, any_six = "0.0.0.0", "::"  # noqa: S104 - the placeholder for the own address
    assert settle_dns_rule(dns(ipAddress=any_four), OWN).ip_address == OWN
    assert code_of(settle_dns_rule, dns(ipAddressType="IP_V6", ipAddress=any_six), OWN) == "rule-unsupported"


def descriptor(**members: Any) -> dict[str, Any]:
    document = {
        "appDId": "hello-1",
        "appName": "hello",
        "appProvider": "harbour",
        "appSoftVersion": "1.0",
        "appDVersion": "1",
        "mecVersion": ["3.1.1"],
        "swImageDescriptor": [{"swImage": f"harbour/hello@{DIGEST}"}],
        "requestedPermissions": ["mec:app"],
    }
    return {**document, **members}


def encoded(**members: Any) -> bytes:
    return json.dumps(descriptor(**members)).encode()


def test_how_large_and_how_deep_a_descriptor_may_be() -> None:
    spaces = b" " * (MAX_APPD - len(encoded()))
    assert parse_appd(encoded() + spaces).app_d_id == "hello-1"
    with pytest.raises(UmecError, match="at most"):
        parse_appd(encoded() + spaces + b" ")
    for kind in ("list", "object"):
        deep: Any = 0
        for _ in range(31):
            deep = [deep] if kind == "list" else {"a": deep}
        with pytest.raises(UmecError, match="nests deeper"):
            parse_appd(encoded(note=deep))
        assert parse_appd(encoded(note=deep[0] if kind == "list" else deep["a"])).app_d_id == "hello-1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (encoded().replace(b'"appName"', b'"appDId": "other", "appName"'), "no JSON"),
        (encoded().replace(b'"hello-1"', b"NaN"), "no JSON"),
        (encoded(swImageDescriptor=[{"swImage": "harbour/hello:v1"}]), "not TENANT/NAME@sha256:HEX"),
        (encoded(requestedPermissions=["mec:app", "mec:app"]), "requestedPermissions holds a value twice"),
    ],
)
def test_a_descriptor_is_refused_for_its_one_fault(text: bytes, reason: str) -> None:
    with pytest.raises(UmecError, match=reason):
        parse_appd(text)
    assert parse_appd(encoded(requestedPermissions=["mec:app", "mec:dns"])).app_name == "hello"


def test_rules_of_a_descriptor_have_names_of_their_own() -> None:
    rule = {"trafficRuleId": "r", "filterType": "FLOW", "priority": 1, "trafficFilter": [{}], "action": "DROP"}
    name = {"dnsRuleId": "d", "domainName": "a.b", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.1"}
    for member, one, identifier in (("appTrafficRule", rule, "trafficRuleId"), ("appDNSRule", name, "dnsRuleId")):
        with pytest.raises(UmecError, match=f"{identifier} holds a value twice"):
            parse_appd(encoded(**{member: [one, one]}))
        assert parse_appd(encoded(**{member: [one, {**one, identifier: "other"}]})).app_name == "hello"


def test_how_long_the_name_of_an_image_may_be() -> None:
    fits = "a/" + "b" * (512 - 2 - 1 - len(DIGEST)) + f"@{DIGEST}"
    assert len(fits) == 512
    assert parse_image_reference(fits).tenant == "a"
    assert code_of(parse_image_reference, "a" + fits) == "appd-invalid"


def packed(*entries: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries:
            made.writestr(name, data)
    return content.getvalue()


def test_how_much_a_package_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_ENTRIES", 2)
    assert read_package(packed(("appd.json", encoded()), ("a", b""))).app_name == "hello"
    assert code_of(read_package, packed(("appd.json", encoded()), ("a", b""), ("b", b""))) == "package-invalid"
    assert code_of(read_package, packed(("a", b""))) == "package-invalid"
    spaces = b" " * (MAX_APPD - len(encoded()))
    assert read_package(packed(("appd.json", encoded() + spaces))).app_name == "hello"
    assert code_of(read_package, packed(("appd.json", encoded() + spaces + b" "))) == "package-invalid"


def test_a_descriptor_stays_within_its_tenant() -> None:
    tenant = TenantRow(id="harbour", name="h", addresses=["203.0.113.8/29"], domains=["harbour.example"])
    every = ["mec:services.read", "mec:services.write", "mec:app", "mec:traffic", "mec:dns"]
    check_appd(parse_appd(encoded(requestedPermissions=every)), tenant)
    foreign = encoded(swImageDescriptor=[{"swImage": f"transit/hello@{DIGEST}"}])
    assert code_of(check_appd, parse_appd(foreign), tenant) == "tenant-foreign"
    asks = parse_appd(encoded(requestedPermissions=["mec:app", "platform:tenant"]))
    assert code_of(check_appd, asks, tenant) == "permission-not-grantable"


def test_names_that_lie_in_each_other() -> None:
    for one, two, found in (
        ("a.example", "a.example", True),
        ("b.a.example", "a.example", True),
        ("a.example", "b.a.example", True),
        ("xa.example", "a.example", False),
        ("a.example", "b.example", False),
    ):
        assert _nested(one, two) is found


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        ([("ser_name", "a")], [("colour", "a")]),
        ([("is_local", "true")], [("is_local", "true"), ("is_local", "true")]),
        ([("ser_name", "a"), ("is_local", "true")], [("ser_name", "a"), ("ser_instance_id", "b")]),
        ([("ser_instance_id", "a")], [("ser_instance_id", "a"), ("ser_category_id", "b")]),
        ([("ser_name", ",".join(["a"] * 64))], [("ser_name", ",".join(["a"] * 65))]),
        ([("ser_name", "a"), ("ser_name", "b")], [("ser_name", "a"), ("ser_name", "")]),
        ([("ser_name", "a" * 1024)], [("ser_name", "a" * 1025)]),
        ([("consumed_local_only", "false")], [("consumed_local_only", "False")]),
    ],
)
def test_where_queries_end(taken: list[tuple[str, str]], refused: list[tuple[str, str]]) -> None:
    assert parse_service_query(taken) != ServiceQuery()
    with pytest.raises(QueryInvalid):
        parse_service_query(refused)


def test_a_transport_of_one_kind_and_criteria_of_one_kind() -> None:
    transport = {
        "id": "t",
        "name": "n",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": "2",
        "endpoint": {"fqdn": ["a"]},
    }
    service = {"serName": "a", "version": "1", "state": "ACTIVE", "serializer": "JSON"}
    for taken in ({"transportId": "t"}, {"transportInfo": transport}):
        assert ServiceInput.model_validate({**service, **taken}).ser_name == "a"
    for refused in ({}, {"transportId": "t", "transportInfo": transport}):
        with pytest.raises(ValidationError):
            ServiceInput.model_validate({**service, **refused})
    one = {"serNames": ["a"], "states": ["ACTIVE"]}
    assert FilteringCriteria.model_validate(one).ser_names == ["a"]
    for other in (
        {"serInstanceIds": ["b"]},
        {"serCategories": [{"href": "h", "id": "i", "name": "n", "version": "1"}]},
    ):
        assert FilteringCriteria.model_validate(other).is_local is None
        with pytest.raises(ValidationError):
            FilteringCriteria.model_validate({**one, **other})


def offered(**members: Any) -> ServiceRow:
    document = {"state": "ACTIVE", "consumedLocalOnly": True, "scopeOfLocality": "MEC_HOST"}
    document |= members.pop("document", {})
    fields = {"id": "s", "tenant": "harbour", "instance": "theirs", "host": "here", "name": "hello", "category": "c"}
    return ServiceRow(
        **{**fields, "suspended": False, "withdrawn": False, "interval": None, "heard_at": NOW, **members},
        document=document,
    )


def found(row: ServiceRow, host: str | None = "here", owner: str | None = "mine", **query: Any) -> bool:
    return Showcase(base="", token_endpoint="", host=host, owner=owner).offers(row, ServiceQuery(**query))


def test_whom_a_service_is_local_to() -> None:
    here, everywhere = offered(), offered(document={"scopeOfLocality": "MEC_SYSTEM"})
    for host, row, local in (
        ("here", here, True),
        ("there", here, False),
        (None, here, True),
        ("there", everywhere, True),
    ):
        assert Showcase(base="", token_endpoint="", host=host, owner=None).is_local(row) is local


def test_who_finds_a_service() -> None:
    assert found(offered())
    assert not found(offered(), host="there")
    assert found(offered(document={"consumedLocalOnly": False}), host="there")
    assert found(offered(document={"scopeOfLocality": "MEC_SYSTEM"}), host="there")
    assert not found(offered(withdrawn=True))
    # Its own application finds it always.
    assert found(offered(withdrawn=True), host="there", owner="theirs")


@pytest.mark.parametrize(
    ("fits", "other"),
    [
        ({"ids": frozenset({"s", "x"})}, {"ids": frozenset({"x"})}),
        ({"names": frozenset({"hello"})}, {"names": frozenset({"x"})}),
        ({"category": "c"}, {"category": "x"}),
        ({"scope": LocalityType.MEC_HOST}, {"scope": LocalityType.ZONE}),
        ({"consumed_local_only": True}, {"consumed_local_only": False}),
        ({"is_local": True}, {"is_local": False}),
    ],
)
def test_each_part_of_a_query_counts(fits: dict[str, Any], other: dict[str, Any]) -> None:
    assert found(offered(), **fits)
    assert not found(offered(), **other)
    wide = offered(document={"consumedLocalOnly": False})
    assert found(wide, host="there", is_local=False)
    assert not found(wide, host="there", is_local=True)
    assert found(wide, consumed_local_only=False)


def test_what_is_said_of_a_service_that_is_silent_or_fallen() -> None:
    assert shown_state(offered(), NOW).value == "ACTIVE"
    for fallen in ({"suspended": True}, {"withdrawn": True}):
        assert shown_state(offered(**fallen), NOW).value == "SUSPENDED"
    beating = offered(interval=10)
    assert shown_state(beating, NOW + timedelta(seconds=30)).value == "ACTIVE"
    assert shown_state(beating, NOW + timedelta(seconds=31)).value == "SUSPENDED"


def test_a_kept_list_ends_with_a_commit_and_with_the_next_silence() -> None:
    rows = [offered(interval=10), offered(interval=20), offered()]
    end = NOW + timedelta(seconds=30)
    assert next_silence(rows, NOW) == end
    assert next_silence(rows, end) == end
    assert next_silence(rows, end + timedelta(seconds=1)) == NOW + timedelta(seconds=60)
    assert next_silence([offered()], NOW) == next_silence([], NOW) == datetime.max.replace(tzinfo=UTC)
    marks, key = tuple(mark(row, NOW) for row in rows), ("harbour",)
    lists = Lists()
    lists.keep(key, KeptList("host-a", marks, b"[]", version=7, until=end))
    assert lists.unchanged(key, 7, NOW) == b"[]"
    assert lists.unchanged(key, 8, NOW) is None
    assert lists.unchanged(key, 7, end) is None
    assert lists.unchanged(("transit",), 7, NOW) is None
    assert lists.find(key, "host-a", marks) == b"[]"
    assert lists.find(key, "host-b", marks) is None
    assert lists.find(key, "host-a", marks[:2]) is None
    # A database that counts no commits never says that nothing was written.
    lists.keep(key, KeptList("host-a", marks, b"[]", version=None, until=end))
    assert lists.unchanged(key, None, NOW) is None
