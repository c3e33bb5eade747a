"""Requests: what is not exactly one of ours is refused, and no text carries anything but itself."""

import json
import re
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from umec_platform.netd import names
from umec_platform.netd.errors import ResolverFailed
from umec_platform.netd.messages import MAX_LINE, TrafficPut, parse_request
from umec_platform.netd.resolver import Record

RULE = {
    "id": "r1", "tenant": "a", "instance": "one", "priority": 10, "action": "FORWARD", "to": "10.64.0.2",
    "filters": [{"dst": ["198.51.100.7"], "dst_ports": [[80, 80]], "protocol": "tcp"}],
}  # fmt: skip
DNS = {"id": "d1", "tenant": "a", "instance": "one", "name": "cam.a.example", "kind": "A", "address": "10.64.0.2"}
SPEC = {"instance": "one", "tenant": "a", "decision": "a.b.c", "repository": "a/probe", "digest": "sha256:" + "0" * 64,
        "blobs": "/var/lib/umec/blobs"}  # fmt: skip
GOOD = {
    "status": {},
    "standing": {"statement": "a.b.c"},
    "tenant.put": {"tenant": "a"},
    "traffic.put": {"rule": RULE},
    "traffic.delete": {"tenant": "a", "rule": "r1"},
    "dns.put": {"rule": DNS},
    "dns.delete": {"tenant": "a", "rule": "d1"},
    "instance.start": {"spec": SPEC},
    "instance.stop": {"instance": "one"},
    "sync": {"tenants": [{"tenant": "a"}], "traffic": [RULE], "dns": [DNS]},
}

INJECTIONS = [
    "", " ", "a b", "a\nb", "a\n", "a;b", "a;drop", "../a", "a/../b", "a\x00b", "$(id)", "`id`", "{a}",
    "a\"b", "a'b", "-a",
    "A", "ä", "a" * 64, "a,b", "@live", "*", "a\u2028b", "a\rb", "%s", "a\\b", "\uff10", "a\tb", "a#b", "a:b",
]  # fmt: skip

PLACES = [
    ("tenant.put", ("tenant",)),
    ("traffic.delete", ("tenant",)),
    ("traffic.delete", ("rule",)),
    ("instance.stop", ("instance",)),
    *[("traffic.put", ("rule", field)) for field in ("id", "tenant", "instance", "to", "action")],
    *[("traffic.put", ("rule", "filters", 0, field)) for field in ("protocol",)],
    ("traffic.put", ("rule", "filters", 0, "dst", 0)),
    *[("dns.put", ("rule", field)) for field in ("id", "tenant", "instance", "name", "kind", "address")],
    *[("instance.start", ("spec", field)) for field in ("instance", "tenant", "decision", "repository")],
    *[("instance.start", ("spec", field)) for field in ("digest", "blobs")],
]  # fmt: skip


def line(op, body):
    return json.dumps({"id": "1", "op": op, **body}).encode()


def changed(op, place, value):
    body = json.loads(json.dumps(GOOD[op]))
    at = body
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    return line(op, body)


@pytest.mark.parametrize("op", GOOD)
def test_good_requests_parse(op):
    assert parse_request(line(op, GOOD[op])).op == op


@pytest.mark.parametrize(("op", "place"), PLACES)
def test_no_text_field_takes_an_injection(op, place):
    for text in INJECTIONS:
        if (place[-1], text) == ("kind", "A"):
            continue
        with pytest.raises(ValidationError):
            parse_request(changed(op, place, text))


@pytest.mark.parametrize("op", GOOD)
def test_unknown_members_are_refused(op):
    with pytest.raises(ValidationError):
        parse_request(line(op, {**GOOD[op], "shell": "id"}))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("rule", "priority"), "10"),
        (("rule", "priority"), 256),
        (("rule", "priority"), True),
        (("rule", "to"), None),
        (("rule", "to"), "010.64.0.2"),
        (("rule", "to"), "fe80::1%eth0"),
        (("rule", "action"), "DROP"),
        (("rule", "filters"), []),
        (("rule", "filters", 0, "dst"), ["198.51.100.7/24"]),
        (("rule", "filters", 0, "dst_ports"), [[81, 80]]),
        (("rule", "filters", 0, "dst_ports"), [[80]]),
        (("rule", "filters", 0, "dst_ports"), [[80, 65536]]),
        (("rule", "filters", 0, "protocol"), "any"),
    ],
)
def test_rules_that_make_no_sense(place, value):
    with pytest.raises(ValidationError):
        parse_request(changed("traffic.put", place, value))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("args", ["/bin/sh\n"]),
        ("args", []),
        ("args", "/bin/sh"),
        ("env", {"LD PRELOAD": "x"}),
        ("env", {"A": "b\nC=d"}),
        ("env", {"A": "b\x00"}),
        ("secrets", {"../x": "YQ=="}),
        ("secrets", {"..": "YQ=="}),
        ("secrets", {"a/b": "YQ=="}),
        ("secrets", {"a": "YQ"}),
        ("secrets", {"a": "Y Q=="}),
        ("secrets", {"a": "A" * 90000}),
        ("blobs", "relative/path"),
        ("blobs", "/a/../b"),
        ("limits", {"memory_mib": 0}),
    ],
)
def test_specifications_that_are_refused(field, value):
    with pytest.raises(ValidationError):
        parse_request(changed("instance.start", ("spec", field), value))


def test_errors_do_not_repeat_what_was_sent():
    with pytest.raises(ValidationError) as refused:
        parse_request(changed("instance.start", ("spec", "secrets"), {"a": "not base64 but a password"}))
    assert "password" not in str(refused.value)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_octets_give_a_request_or_the_one_error(data):
    with pytest.raises(ValidationError):
        parse_request(data)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    ),
    st.sampled_from(PLACES),
)
def test_any_value_gives_a_request_or_the_one_error(value, where):
    try:
        request = parse_request(changed(*where, value))
    except ValidationError:
        return
    assert parse_request(request.model_dump_json().encode()) == request


@settings(deadline=None)
@given(st.text(max_size=80))
def test_names_are_labels_and_addresses_are_canonical(text):
    def taken(kind):
        try:
            return TypeAdapter(kind).validate_python(text, strict=True)
        except ValidationError:
            return None

    name = taken(names.DnsName)
    assert name is None or re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", name)
    address = taken(names.Address)
    assert address is None or str(ip_address(address)) == address
    prefix = taken(names.Cidr)
    assert prefix is None or str(ip_network(prefix)) == prefix
    identifier = taken(names.Identifier)
    assert identifier is None or re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", identifier)


@settings(deadline=None)
@given(st.text(max_size=80), st.text(max_size=40))
def test_the_resolver_checks_once_more(name, address):
    try:
        told = Record(name, "A", address, 5).line()
    except (ResolverFailed, ValueError):
        return
    assert re.fullmatch(r"[a-z0-9.-]+ 5 IN A [0-9.]+", told)


def test_requests_survive_their_own_spelling():
    request = parse_request(line("traffic.put", GOOD["traffic.put"]))
    assert isinstance(request, TrafficPut)
    assert parse_request(request.model_dump_json().encode()) == request
    assert request.rule.filters[0].dst == ["198.51.100.7/32"]


def test_a_whole_synchronisation_fits_into_a_line():
    """10,000 rules of each kind, with names of full length: what the budgets are measured with."""
    filters = [{"dst": ["203.0.113.255/32"], "dst_ports": [[10000, 65535]], "protocol": "tcp"}]
    name = ".".join(["n" * 60, "t" * 60, "example"])
    body = {
        "tenants": [{"tenant": f"{'t' * 60}{n:03}"} for n in range(256)],
        "traffic": [{**RULE, "id": f"{'r' * 57}{n:05}", "tenant": "t" * 63, "filters": filters} for n in range(10_000)],
        "dns": [{**DNS, "id": f"{'d' * 57}{n:05}", "tenant": "t" * 63, "name": f"n{n}.{name}"} for n in range(10_000)],
        "instances": [f"{'i' * 57}{n:05}" for n in range(1000)],
    }
    whole = line("sync", body)
    assert len(whole) < MAX_LINE // 2
    request = parse_request(whole)
    assert (len(request.traffic), len(request.dns)) == (10_000, 10_000)


@pytest.mark.parametrize("op", GOOD)
def test_a_request_that_is_not_written_as_it_should_be_is_refused(op):
    good = line(op, GOOD[op])
    more = json.dumps({"id": "1", "op": op, **GOOD[op], "more": 1}).encode()
    for bad in (
        b"", b" ", b"null", b"[]", b"7", b'"a"', b"{}", good[:-1], good[: len(good) // 2], good + b"x", good + good,
        b"[" * 5000,
        good.decode().encode("utf-16"), b"\xef\xbb\xbf" + good, good.replace(b"{", b"{NaN,", 1), more,
        good.replace(b'"1"', b"1"), good.replace(b'"1"', b'"\xff"'), good.replace(b'"1"', b'"\\ud800"'),
        good.replace(op.encode(), b"shell"), good.replace(b'"op"', b'"oq"'),
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            parse_request(bad)
    assert parse_request(good).op == op
