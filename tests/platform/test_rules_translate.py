"""Rules of MEC 011 become what netd enforces: confined, or refused."""

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from umec_core.errors import UmecError
from umec_platform.effects import RuleKey
from umec_platform.errors import AddressForeign, NameForeign, RuleInvalid, RuleTooLarge, RuleUnsupported
from umec_platform.hosts.desired import Desired
from umec_platform.netd.messages import MAX_LINE, MAX_RULES, Sync, parse_request
from umec_platform.rules.confine import Confines, check_domain, confines_before_start, parse_network
from umec_platform.rules.room import MAX_RULE_OCTETS, ROOM, octets, surplus
from umec_platform.rules.schemas import DnsRule, TrafficRule
from umec_platform.rules.translate import rule_id, to_netd_dns, to_netd_traffic

ANY = "0.0.0.0"  # noqa: S104 - the placeholder for the own address
BUSY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
OWN = IPv4Address("10.64.1.10")
SIBLING = IPv4Address("10.64.1.11")
CONFINES = Confines(
    tenant="harbour",
    instance="instance-1",
    own=OWN,
    siblings=frozenset({OWN, SIBLING}),
    networks=(ip_network("10.64.1.0/24"), ip_network("203.0.113.8/29"), ip_network("2001:db8::/64")),
    domains=("harbour.example",),
)
GOOD_FILTER = {"dstAddress": ["203.0.113.10"], "dstPort": ["80"], "protocol": ["TCP"]}


def traffic(**members: object) -> TrafficRule:
    document = {
        "trafficRuleId": "Rule1",
        "filterType": "FLOW",
        "priority": 1,
        "trafficFilter": [GOOD_FILTER],
        "action": "FORWARD_DECAPSULATED",
        "dstInterface": [{"interfaceType": "IP"}],
        "state": "ACTIVE",
    }
    return TrafficRule.model_validate({**document, **members})


def dns(**members: object) -> DnsRule:
    document = {
        "dnsRuleId": "Name1",
        "domainName": "hello.harbour.example",
        "ipAddressType": "IP_V4",
        "ipAddress": "203.0.113.10",
        "ttl": 300,
        "state": "ACTIVE",
    }
    return DnsRule.model_validate({**document, **members})


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"trafficFilter": [{"dstAddress": ["198.51.100.1"]}]}, AddressForeign),
        ({"trafficFilter": [{"dstAddress": ["203.0.113.0/24"]}]}, AddressForeign),
        ({"trafficFilter": [{"dstAddress": ["203.0.113.8-203.0.113.16"]}]}, AddressForeign),
        ({"trafficFilter": [GOOD_FILTER, {"dstPort": ["80"]}]}, AddressForeign),
        ({"trafficFilter": [{}]}, AddressForeign),
        (
            {"action": "PASSTHROUGH", "dstInterface": None, "trafficFilter": [{"srcAddress": ["10.64.1.0/24"]}]},
            AddressForeign,
        ),
        (
            {
                "action": "PASSTHROUGH",
                "dstInterface": None,
                "trafficFilter": [{"srcAddress": ["203.0.113.9"], "dstAddress": ["10.99.0.1"]}],
            },
            AddressForeign,
        ),
        ({"trafficFilter": [{"dstAddress": ["0.0.0.0/0"]}]}, AddressForeign),
        ({"dstInterface": [{"interfaceType": "IP", "dstIpAddress": "10.64.2.10"}]}, AddressForeign),
        ({"dstInterface": [{"interfaceType": "IP", "dstIpAddress": "10.64.1.99"}]}, AddressForeign),
        ({"dstInterface": [{"interfaceType": "MAC", "dstMacAddress": "02:00:00:00:00:01"}]}, RuleUnsupported),
        (
            {
                "action": "DUPLICATE_ENCAPSULATED",
                "dstInterface": [
                    {"interfaceType": "IP"},
                    {"interfaceType": "IP", "tunnelInfo": {"tunnelType": "GRE"}},
                ],
            },
            RuleUnsupported,
        ),
        ({"dstInterface": [{"interfaceType": "IP", "srcMacAddress": "02:00:00:00:00:01"}]}, RuleUnsupported),
        ({"dstInterface": [{"interfaceType": "IP", "dstMACAddress": "02:00:00:00:00:01"}]}, RuleUnsupported),
        ({"trafficFilter": [{**GOOD_FILTER, "qCI": 1}]}, RuleUnsupported),
        ({"trafficFilter": [{**GOOD_FILTER, "tag": ["x"]}]}, RuleUnsupported),
        ({"trafficFilter": [{**GOOD_FILTER, "token": ["x"]}]}, RuleUnsupported),
        ({"trafficFilter": [{**GOOD_FILTER, "srcTunnelAddress": ["203.0.113.9"]}]}, RuleUnsupported),
        ({"trafficFilter": [{**GOOD_FILTER, "protocol": ["sctp"]}]}, RuleUnsupported),
        ({"trafficFilter": [{**GOOD_FILTER, "protocol": ["icmp"]}]}, RuleInvalid),
        ({"trafficFilter": [{**GOOD_FILTER, "dstPort": ["90-80"]}]}, RuleInvalid),
        ({"trafficFilter": [{**GOOD_FILTER, "dstPort": ["65536"]}]}, RuleInvalid),
        ({"trafficFilter": [{"dstAddress": ["203.0.113.10/29"]}]}, RuleInvalid),
        ({"trafficFilter": [{"dstAddress": ["fe80::1%eth0"]}]}, RuleInvalid),
        ({"filterType": "PACKET"}, RuleUnsupported),
    ],
)
def test_a_rule_outside_the_tenant_or_the_data_plane_is_refused(
    members: dict[str, object], reason: type[UmecError]
) -> None:
    with pytest.raises(reason) as refusal:
        to_netd_traffic(traffic(**members), CONFINES)
    assert refusal.value.code == reason.code
    assert to_netd_traffic(traffic(), CONFINES).to == str(OWN)


@pytest.mark.parametrize(
    ("action", "interfaces"),
    [("DROP", [{"interfaceType": "IP"}]), ("FORWARD_DECAPSULATED", []), ("DUPLICATE_ENCAPSULATED", [{}])],
)
def test_each_action_has_its_number_of_interfaces(action: str, interfaces: list[object]) -> None:
    with pytest.raises(ValidationError):
        traffic(action=action, dstInterface=interfaces)


def test_a_forwarding_rule_says_what_is_meant() -> None:
    rule = to_netd_traffic(traffic(dstInterface={"interfaceType": "IP", "dstIPAddress": "10.64.1.11"}), CONFINES)
    assert rule.model_dump() == {
        "id": rule_id("instance-1", "traffic", "Rule1"),
        "tenant": "harbour",
        "instance": "instance-1",
        "priority": 1,
        "filters": [
            {"src": [], "dst": ["203.0.113.10/32"], "src_ports": [], "dst_ports": [[80, 80]], "protocol": "tcp"}
        ],
        "action": "FORWARD",
        "to": "10.64.1.11",
    }


def test_older_spellings_mean_the_same() -> None:
    old = traffic(action="FORWARD_AS_IS", dstInterface={"interfaceType": "IP", "dstIPAddress": ANY})
    assert to_netd_traffic(old, CONFINES).to == str(OWN)
    both = [{"interfaceType": "IP"}, {"interfaceType": "IP"}]
    assert to_netd_traffic(traffic(action="DUPLICATE_AS_IS", dstInterface=both), CONFINES).action == "DUPLICATE"
    assert traffic(action="FORWARD, ENCAPSULATED").wire()["action"] == "FORWARD_ENCAPSULATED"
    tagged = traffic(trafficFilter=[{"token": ["a"]}]).wire()["trafficFilter"]
    assert tagged == [{"tag": ["a"]}]


def test_ports_without_a_protocol_are_those_of_tcp_and_udp() -> None:
    rule = to_netd_traffic(traffic(trafficFilter=[{"dstAddress": [ANY], "dstPort": ["80-90"]}]), CONFINES)
    assert [(item.protocol, item.dst, item.dst_ports) for item in rule.filters] == [
        ("tcp", [f"{OWN}/32"], [[80, 90]]),
        ("udp", [f"{OWN}/32"], [[80, 90]]),
    ]


def test_traffic_from_the_tenant_is_dropped_wherever_it_goes_and_passes_to_granted_addresses() -> None:
    own = {"srcAddress": ["10.64.1.0/24"]}
    dropped = traffic(action="DROP", dstInterface=None, trafficFilter=[own])
    assert to_netd_traffic(dropped, CONFINES).filters[0].src == ["10.64.1.0/24"]
    granted = traffic(action="PASSTHROUGH", dstInterface=None, trafficFilter=[{**own, "dstAddress": ["203.0.113.9"]}])
    assert to_netd_traffic(granted, CONFINES).filters[0].dst == ["203.0.113.9/32"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"domainName": "example.org"}, NameForeign),
        ({"domainName": "evilharbour.example"}, NameForeign),
        ({"domainName": "hello.harbour.example.org"}, NameForeign),
        ({"ipAddress": "198.51.100.1"}, AddressForeign),
        ({"domainName": "*.harbour.example"}, RuleInvalid),
        ({"domainName": "a_b.harbour.example"}, RuleInvalid),
        ({"domainName": "harbour.example\n"}, RuleInvalid),
        ({"ipAddressType": "IP_V6", "ipAddress": "::"}, RuleUnsupported),
    ],
)
def test_a_name_or_address_of_others_is_refused(members: dict[str, object], reason: type[UmecError]) -> None:
    with pytest.raises(reason) as refusal:
        to_netd_dns(dns(**members), CONFINES)
    assert refusal.value.code == reason.code
    assert to_netd_dns(dns(), CONFINES).name == "hello.harbour.example"


def test_a_dns_rule_has_a_short_life_in_caches_and_one_spelling() -> None:
    assert to_netd_dns(dns(), CONFINES).ttl == 60
    assert to_netd_dns(dns(ttl=None), CONFINES).ttl == 60
    assert to_netd_dns(dns(ttl=5), CONFINES).ttl == 5
    own = to_netd_dns(dns(domainName="Hello.Harbour.Example.", ipAddress=ANY), CONFINES)
    assert (own.name, own.address, own.kind) == ("hello.harbour.example", str(OWN), "A")
    six = to_netd_dns(dns(ipAddressType="IP_V6", ipAddress="2001:db8::1"), CONFINES)
    assert (six.kind, six.address) == ("AAAA", "2001:db8::1")


def test_the_family_of_an_address_is_what_the_rule_says() -> None:
    with pytest.raises(ValidationError):
        dns(ipAddressType="IP_V6")


def test_before_the_start_the_same_rules_are_judged() -> None:
    early = confines_before_start(tenant="harbour", networks=CONFINES.networks, domains=CONFINES.domains)
    to_netd_traffic(traffic(), early)
    with pytest.raises(AddressForeign):
        to_netd_traffic(traffic(trafficFilter=[{"dstAddress": ["198.51.100.1"]}]), early)


def test_a_rule_has_its_octets_and_no_more() -> None:
    def wide(filters: int) -> TrafficRule:
        item = {
            "srcAddress": [f"198.51.100.{number}" for number in range(16)],
            "dstAddress": [f"203.0.113.{8 + number % 8}" for number in range(16)],
            "srcPort": [f"{50000 + number}-{60000 + number}" for number in range(16)],
            "protocol": ["tcp"],
        }
        return traffic(trafficFilter=[item] * filters)

    assert MAX_RULE_OCTETS // 2 < octets(to_netd_traffic(wide(3), CONFINES)) <= MAX_RULE_OCTETS
    with pytest.raises(RuleTooLarge) as refused:
        to_netd_traffic(wide(5), CONFINES)
    assert refused.value.code == "rule-too-large"


@pytest.mark.parametrize("greedy", ["octets", "rules"])
def test_a_tenant_that_takes_all_the_room_takes_its_own_and_the_whole_state_fits(greedy: str) -> None:
    one = to_netd_traffic(traffic(), CONFINES)
    many = 21_000
    if greedy == "octets":
        filters = one.filters[0].model_copy(update={"src": [f"198.51.100.{number}/32" for number in range(16)]})
        one, many = one.model_copy(update={"filters": [filters] * 6}), 6_000
        assert MAX_RULE_OCTETS // 2 < octets(one) <= MAX_RULE_OCTETS
    theirs = [one.model_copy(update={"id": f"a-{number}"}) for number in range(many)]
    mine = [one.model_copy(update={"id": f"b-{number}", "tenant": "small"}) for number in range(500)]
    keys = {rule.id: RuleKey(rule.instance, "traffic", rule.id) for rule in [*theirs, *mine]}
    state = Desired(traffic=[*theirs, *mine], keys=keys)
    state.leave_out()
    kept = state.traffic
    left_out = theirs[-len(state.refused) :]
    assert {rule.id for rule in kept} == set(keys) - {rule.id for rule in left_out}
    assert {state.refused[keys[rule.id]].code for rule in left_out} == {"rule-no-room"}
    assert max(len(kept) / MAX_RULES, sum(map(octets, kept)) / ROOM) > 0.99
    instances = [f"instance-{number:030}" for number in range(MAX_RULES)]
    line = Sync.model_construct(id="1", op="sync", tenants=[], traffic=kept, dns=[], instances=instances)
    text = line.model_dump_json().encode()
    assert len(text) < MAX_LINE
    assert len(parse_request(text).traffic) == len(kept)
    assert surplus(kept) == frozenset()


@BUSY_MACHINE
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 16)), max_size=12))
def test_who_takes_no_more_than_an_equal_share_has_all_of_it(wanted: list[tuple[str, int]]) -> None:
    one, room = to_netd_traffic(traffic(), CONFINES), 3000
    rules = []
    for place, (tenant, prefixes) in enumerate(wanted):
        item = one.filters[0].model_copy(update={"src": ["198.51.100.0/24"] * prefixes})
        rules.append(one.model_copy(update={"id": f"r{place}", "tenant": tenant, "filters": [item]}))
    over = surplus(rules, room=room)
    taken = {tenant: sum(octets(rule) for rule in rules if rule.tenant == tenant) for tenant in "abc"}
    assert sum(octets(rule) for rule in rules if rule.id not in over) <= room
    assert bool(over) == (sum(taken.values()) > room)
    assert all(taken[rule.tenant] > room // 3 for rule in rules if rule.id in over)


words = st.one_of(
    st.text(max_size=40),
    st.sampled_from([ANY, "203.0.113.10", "203.0.113.8/29", "10.64.1.1-10.64.1.200", "::/0", "80", "1-65535"]),
    st.ip_addresses().map(str),
)
filters = st.dictionaries(
    st.sampled_from(["srcAddress", "dstAddress", "srcPort", "dstPort", "protocol", "tag", "qCI"]),
    st.one_of(st.lists(words, max_size=4), st.integers(-1, 300)),
    max_size=4,
)


@BUSY_MACHINE
@given(st.lists(filters, min_size=1, max_size=3), st.sampled_from(["DROP", "FORWARD_DECAPSULATED"]))
def test_any_filter_is_enforced_within_the_tenant_or_refused(items: list[object], action: str) -> None:
    interface = [{"interfaceType": "IP"}] if action != "DROP" else None
    try:
        rule = traffic(trafficFilter=items, action=action, dstInterface=interface)
    except ValidationError:
        return
    try:
        made = to_netd_traffic(rule, CONFINES)
    except (RuleInvalid, RuleUnsupported, RuleTooLarge, AddressForeign):
        return
    for item in made.filters:
        sides = [side for side in (item.src, item.dst) if side] if action == "DROP" else [item.dst]
        assert all(sides)
        assert any(_within(side) for side in sides)


def _within(side: list[str]) -> bool:
    try:
        for text in side:
            CONFINES.check_network(parse_network(text))
    except AddressForeign:
        return False
    return True


@BUSY_MACHINE
@given(st.text(max_size=80))
def test_any_name_is_a_host_name_or_refused(text: str) -> None:
    try:
        name = check_domain(text)
    except RuleInvalid:
        return
    assert check_domain(name) == name == name.lower()
