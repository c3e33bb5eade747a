"""Confinement of rules to their tenant, and that no two rules speak for the same packets. Pure."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_core.errors import UmecError
from umec_platform.netd.boxes import Confinement, compile_rule
from umec_platform.netd.errors import RuleOverlaps
from umec_platform.netd.messages import TrafficFilter, TrafficRule
from umec_platform.netd.rulebook import RuleBook
from umec_platform.netd.table import elements

POOL = IPv4Network("10.64.0.0/16")
HOST = frozenset({IPv4Address("192.0.2.1")})


def tenant(number, **changes):
    fields = {"subnet": IPv4Network(f"10.64.{number}.0/24"), "own": frozenset({f"10.64.{number}.2"}), "pool": POOL,
              "host": HOST, "reserved": frozenset({8444}), **changes}  # fmt: skip
    return Confinement(**fields)


def rule(action="PASSTHROUGH", name="r", who="a", priority=10, to=None, **filter_fields):
    return TrafficRule(id=name, tenant=who, instance="one", priority=priority, action=action, to=to,
                       filters=[TrafficFilter(**filter_fields)])  # fmt: skip


def code_of(action, *args):
    with pytest.raises(UmecError) as refused:
        action(*args)
    return refused.value.code


def test_target_of_another_tenant():
    wanted = rule("FORWARD", to="10.64.1.2", dst=["198.51.100.7"])
    assert code_of(compile_rule, wanted, tenant(0)) == "address-not-of-tenant"
    assert compile_rule(wanted, tenant(1)).to == "10.64.1.2"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "rule-too-broad"),
        ({"src": ["192.0.2.0/24"]}, "rule-too-broad"),
        ({"src": ["10.64.0.0/24"]}, "rule-too-broad"),
        ({"src": ["10.64.0.2"], "dst": ["203.0.0.0/16"]}, "rule-too-broad"),
        ({"src": ["10.64.0.2"], "dst": ["10.64.1.2"]}, "address-not-of-tenant"),
        ({"src": ["10.64.0.2"], "dst": ["192.0.2.1"]}, "rule-too-broad"),
        ({"dst": ["0.0.0.0/0"]}, "address-not-of-tenant"),
        ({"dst": ["10.64.0.0/16"]}, "address-not-of-tenant"),
        ({"dst": ["10.64.1.2"]}, "address-not-of-tenant"),
        ({"src": ["10.64.1.2"], "dst": ["10.64.1.3"]}, "address-not-of-tenant"),
        ({"dst": ["198.51.0.0/16"]}, "rule-too-broad"),
        ({"dst": ["224.0.0.5"]}, "rule-too-broad"),
        ({"dst": ["127.0.0.1"]}, "rule-too-broad"),
        ({"dst": ["192.0.2.1"]}, "rule-too-broad"),
        ({"dst": ["192.0.2.0/24"]}, "rule-too-broad"),
        ({"dst": ["192.0.2.1"], "dst_ports": [[53, 53]], "protocol": "udp"}, "rule-too-broad"),
        ({"dst": ["192.0.2.1"], "dst_ports": [[8000, 9000]], "protocol": "tcp"}, "rule-too-broad"),
        ({"dst": ["2001:db8::/64"]}, "rule-too-broad"),
        ({"src": ["198.51.100.0/24", "198.51.100.7"], "dst": ["203.0.113.7"]}, "rule-overlaps"),
    ],
)
def test_rules_beyond_their_tenant(fields, code):
    assert code_of(compile_rule, rule(**fields), tenant(0)) == code


@pytest.mark.parametrize(
    "fields",
    [
        {"dst": ["198.51.100.7"]},
        {"dst": ["198.51.100.0/24"], "src": ["192.0.2.0/24"]},
        {"dst": ["10.64.0.2"]},
        {"action": "DROP", "src": ["10.64.0.0/24"]},
        {"action": "DROP", "src": ["10.64.0.2"], "dst": ["0.0.0.0/0"]},
        {"src": ["10.64.0.2"], "dst": ["203.0.113.7"]},
        {"dst": ["192.0.2.1"], "dst_ports": [[8080, 8080]], "protocol": "tcp"},
    ],
)
def test_rules_within_their_tenant(fields):
    assert compile_rule(rule(**fields), tenant(0)).boxes


def test_flows_that_begin_inside_are_not_forwarded():
    wanted = rule("FORWARD", to="10.64.0.2", src=["10.64.0.0/24"])
    assert code_of(compile_rule, wanted, tenant(0)) == "rule-too-broad"


def test_too_many_combinations():
    prefixes = [f"198.51.100.{number}" for number in range(16)]
    ports = [[number, number] for number in range(1, 31, 2)] + [[50, 50]]
    wide = {"dst": prefixes, "src": [f"203.0.113.{number}" for number in range(16)], "protocol": "tcp"}
    assert len(compile_rule(rule(**wide), tenant(0)).boxes) == 256
    assert code_of(compile_rule, rule(**wide, dst_ports=ports), tenant(0)) == "rule-too-broad"


def test_packets_of_another_tenant_cannot_be_claimed():
    book = RuleBook()
    book.put(compile_rule(rule(dst=["198.51.100.7"], dst_ports=[[80, 80]], protocol="tcp"), tenant(0)))
    # By an equal rule, by one that holds it, at whatever priority.
    for wanted in (
        rule(who="b", dst=["198.51.100.7"], dst_ports=[[80, 80]], protocol="tcp"),
        rule(who="b", priority=0, dst=["198.51.100.0/24"]),
    ):
        assert code_of(book.check, compile_rule(wanted, tenant(1))) == "rule-overlaps"
    other = compile_rule(rule(who="b", dst=["198.51.100.7"], dst_ports=[[81, 81]], protocol="tcp"), tenant(1))
    book.check(other)
    book.put(other)
    assert len(book) == 2


def test_own_rules_overlap_at_different_priorities_only():
    book = RuleBook()
    book.put(compile_rule(rule("DROP", dst=["198.51.100.0/24"]), tenant(0)))
    same = compile_rule(rule(name="s", dst=["198.51.100.7"]), tenant(0))
    assert code_of(book.check, same) == "rule-overlaps"
    book.check(compile_rule(rule(name="s", priority=9, dst=["198.51.100.7"]), tenant(0)))
    book.check(compile_rule(rule(dst=["198.51.100.7"]), tenant(0)))  # its own replacement
    book.discard("a", "r")
    book.check(same)


addresses = st.sampled_from(["198.51.100.0/24", "198.51.100.0/25", "198.51.100.7", "198.51.100.8", "203.0.113.9"])
filters = st.builds(
    dict,
    src=st.lists(addresses, max_size=1),
    dst=st.lists(addresses, min_size=1, max_size=2),
    dst_ports=st.lists(st.sampled_from([[80, 80], [80, 90], [443, 443]]), max_size=1),
    protocol=st.sampled_from(["tcp", "udp"]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(filters, st.integers(0, 1), st.integers(0, 1)), max_size=8))
def test_what_the_book_takes_never_overlaps(wanted):
    book = RuleBook()
    for number, (fields, who, priority) in enumerate(wanted):
        try:
            one = compile_rule(rule(name=f"r{number}", who=f"t{who}", priority=priority, **fields), tenant(who))
            book.check(one)
        except RuleOverlaps:
            continue
        book.put(one)
    rules = list(book)
    for index, one in enumerate(rules):
        for other in rules[:index]:
            if one.tenant != other.tenant or one.priority == other.priority:
                assert not any(mine.overlaps(theirs) for mine in one.boxes for theirs in other.boxes)
    # So each key stands in each map once, and goes with its rule.
    for members in elements(rules).values():
        keys = [repr(key) for key, _ in members]
        assert len(keys) == len(set(keys))
    for one in rules:
        book.discard(one.tenant, one.id)
    assert len(book) == 0
    assert book._exact == {}
    assert book._wide == {}
