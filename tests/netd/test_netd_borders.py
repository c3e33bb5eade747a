"""Where each check of netd's pure parts begins and ends: the last value that is taken, and the first that is not."""

import base64
import gzip
import hashlib
import json
import os
import struct
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from pydantic import TypeAdapter, ValidationError

from umec_core.errors import UmecError
from umec_core.jose import KeySet, sign_jwt
from umec_platform.netd import image as image_module
from umec_platform.netd import names, unpack
from umec_platform.netd.boxes import Box, CompiledRule, Confinement, Direction, compile_rule
from umec_platform.netd.bundle import HOST_USERS, process
from umec_platform.netd.decisions import verify_decision
from umec_platform.netd.errors import ImageInvalid, ResolverFailed
from umec_platform.netd.image import Layer, open_layer, read_image
from umec_platform.netd.leases import Lease, LeaseTerms
from umec_platform.netd.messages import DnsRule, InstanceSpec, TrafficFilter, TrafficRule
from umec_platform.netd.resolver import Record, Resolver
from umec_platform.netd.state import NameBook, TenantNetworks, check_dns_address

BOX = Box(Direction.IN, (10, 20), (10, 20), (10, 20), (10, 20), (10, 20))
RANGES = ("src", "dst", "protocol", "sport", "dport")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def code_of(ask, *args, **kwargs):
    with pytest.raises(UmecError) as refused:
        ask(*args, **kwargs)
    return refused.value.code


@pytest.mark.parametrize("field", RANGES)
def test_boxes_overlap_when_they_meet_in_every_field(field):
    for near, meets in (((21, 30), False), ((0, 9), False), ((20, 30), True), ((0, 10), True), ((12, 13), True)):
        other = replace(BOX, **{field: near})
        assert BOX.overlaps(other) is meets
        assert other.overlaps(BOX) is meets


def test_boxes_of_two_directions_do_not_overlap():
    assert not BOX.overlaps(replace(BOX, direction=Direction.OUT))
    assert BOX.overlaps(BOX)


def test_a_box_is_exact_when_one_destination_protocol_and_port_say_it_all():
    exact = Box(Direction.IN, (0, 2**32 - 1), (7, 7), (6, 6), (0, 65535), (80, 80))
    assert exact.exact
    for change in ({"src": (0, 7)}, {"sport": (0, 7)}, {"dst": (7, 8)}, {"protocol": (6, 7)}, {"dport": (80, 81)}):
        assert not replace(exact, **change).exact


def confinement(**changes):
    fields = {
        "subnet": IPv4Network("10.64.0.0/24"),
        "own": frozenset({"10.64.0.2"}),
        "pool": IPv4Network("10.64.0.0/16"),
        "host": frozenset({IPv4Address("192.0.2.1")}),
        "reserved": frozenset({8444}),
    }
    return Confinement(**{**fields, **changes})


def compiled(**filter_fields):
    action, to = filter_fields.pop("action", "PASSTHROUGH"), filter_fields.pop("to", None)
    filters = filter_fields.pop("filters", None) or [TrafficFilter(**filter_fields)]
    rule = TrafficRule(id="r", tenant="a", instance="one", priority=1, action=action, to=to, filters=filters)
    return compile_rule(rule, confinement())


@pytest.mark.parametrize(
    ("taken", "refused", "code"),
    [
        ({"dst": ["198.51.100.0/24"]}, {"dst": ["198.51.100.0/23"]}, "rule-too-broad"),
        ({"dst": ["223.255.255.0/24"]}, {"dst": ["224.0.0.0/24"]}, "rule-too-broad"),
        ({"dst": ["128.0.0.0/24"]}, {"dst": ["127.255.255.0/24"]}, "rule-too-broad"),
        ({"dst": ["10.65.0.0/24"]}, {"dst": ["10.64.255.0/24"]}, "address-not-of-tenant"),
        ({"dst": ["192.0.2.2"]}, {"dst": ["192.0.2.1"]}, "rule-too-broad"),
        (
            {"dst": ["192.0.2.1"], "protocol": "tcp", "dst_ports": [[1024, 8443], [8445, 65535]]},
            {"dst": ["192.0.2.1"], "protocol": "tcp", "dst_ports": [[1023, 1023]]},
            "rule-too-broad",
        ),
        (
            {"dst": ["192.0.2.1"], "protocol": "tcp", "dst_ports": [[8445, 8445]]},
            {"dst": ["192.0.2.1"], "protocol": "tcp", "dst_ports": [[8000, 8001], [8444, 8444]]},
            "rule-too-broad",
        ),
        ({"action": "DROP", "src": ["10.64.0.7"]}, {"src": ["10.64.0.7"]}, "rule-too-broad"),
        (
            {"action": "DROP", "src": ["10.64.0.7"]},
            {"action": "DROP", "src": ["10.64.0.7", "198.51.100.7"]},
            "rule-too-broad",
        ),
        (
            {"src": ["10.64.0.7"], "dst": ["198.51.100.0/24"]},
            {"src": ["10.64.0.7"], "dst": ["198.51.100.0/23"]},
            "rule-too-broad",
        ),
        (
            {"action": "DROP", "src": ["10.64.0.7"]},
            {"action": "DUPLICATE", "to": "10.64.0.2", "src": ["10.64.0.7"]},
            "rule-too-broad",
        ),
        (
            {"src": ["10.64.0.7"], "dst": ["198.51.100.7"]},
            {"action": "DUPLICATE", "to": "10.64.0.2", "src": ["10.64.0.7"], "dst": ["198.51.100.7"]},
            "rule-too-broad",
        ),
        (
            {"action": "DUPLICATE", "to": "10.64.0.2", "dst": ["198.51.100.7"]},
            {"action": "DUPLICATE", "to": "10.64.0.3", "dst": ["198.51.100.7"]},
            "address-not-of-tenant",
        ),
        (
            {"action": "DROP", "src": ["10.64.0.0/24"], "dst": ["0.0.0.0/0"]},
            {"action": "DROP", "src": ["10.64.0.0/23"]},
            "rule-too-broad",
        ),
        ({"dst": ["198.51.100.7"]}, {"dst": ["198.51.100.7"], "src": ["2001:db8::/64"]}, "rule-too-broad"),
    ],
)
def test_where_the_confinement_of_rules_begins(taken, refused, code):
    assert compiled(**taken).boxes
    assert code_of(compiled, **refused) == code


def test_filters_that_say_the_same_are_one_box_and_256_boxes_are_the_most():
    one = TrafficFilter(dst=["198.51.100.7"])
    assert len(compiled(filters=[one, one]).boxes) == 1
    # 256 in all, over several filters, each of which has fewer.
    many = [TrafficFilter(dst=[f"198.51.{part}.{n}" for n in range(16)]) for part in range(16)]
    assert len(compiled(filters=many).boxes) == 256
    wide = [
        TrafficFilter(dst=[f"198.51.{part}.{n}" for n in range(16)], src=["203.0.113.1", "203.0.113.2"])
        for part in range(9)
    ]
    assert code_of(compiled, filters=wide) == "rule-too-broad"
    sources = [f"203.0.113.{n}" for n in range(16)]
    assert len(compiled(dst=[f"198.51.1.{n}" for n in range(16)], src=sources).boxes) == 256
    ports = {"protocol": "udp", "dst_ports": [[1, 1], [2, 2]]}
    assert code_of(compiled, dst=[f"198.51.1.{n}" for n in range(16)], src=sources, **ports) == "rule-too-broad"


def test_a_rule_whose_filters_overlap_is_refused():
    two = [TrafficFilter(dst=["198.51.100.0/24"]), TrafficFilter(dst=["198.51.100.7"])]
    assert code_of(compiled, filters=two) == "rule-overlaps"
    apart = [TrafficFilter(dst=["198.51.100.0/24"]), TrafficFilter(dst=["198.51.101.7"])]
    assert len(compiled(filters=apart).boxes) == 2


def valid(kind, text):
    return TypeAdapter(kind).validate_python(text, strict=True)


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (names.Address, "fe80::1", "fe80::1%eth0"),
        (names.Cidr, "fe80::/64", "fe80::%eth0/64"),
        (names.Cidr, "198.51.100.0/24", "198.51.100.1/24"),
        (names.DnsName, "cam.example", "cam"),
        (names.DnsName, "cam.a1", "cam.1"),
        (names.DnsName, "a-b.example", "a_b.example"),
        (names.DnsName, "a" * 63 + ".example", "a" * 64 + ".example"),
        (names.DnsName, "cam.example", "cam..example"),
        (names.Secret, "YQ==", "YR=="),
        (names.BlobDirectory, "/a/..b", "/a/../b"),
        (names.BlobDirectory, "/a/b", "/a//b"),
        (names.BlobDirectory, "/a/.b", "/a/./b"),
        (names.BlobDirectory, "/a", "/a/"),
    ],
)
def test_where_names_end(kind, taken, refused):
    assert valid(kind, taken) == taken
    with pytest.raises(ValidationError):
        valid(kind, refused)


def test_the_largest_secret():
    assert valid(names.Secret, base64.b64encode(b"x" * names.MAX_SECRET).decode())
    for more in (1, 2):
        with pytest.raises(ValidationError):
            valid(names.Secret, base64.b64encode(b"x" * (names.MAX_SECRET + more)).decode())


def test_ports_families_and_targets_belong_together():
    def dns(**changes):
        fields = {"id": "d", "tenant": "a", "instance": "one", "name": "a.example", "kind": "A", "address": "10.64.0.2"}
        return DnsRule(**{**fields, **changes})

    assert dns(kind="AAAA", address="2001:db8::1")
    for changes in ({"kind": "AAAA"}, {"address": "2001:db8::1"}):
        with pytest.raises(ValidationError):
            dns(**changes)
    for protocol, ports, good in (
        ("tcp", {"src_ports": [[80, 80]]}, True),
        ("udp", {"dst_ports": [[80, 81]]}, True),
        ("icmp", {"src_ports": [[80, 80]]}, False),
        ("any", {"dst_ports": [[80, 80]]}, False),
        ("any", {}, True),
        ("tcp", {"src_ports": [[81, 80]]}, False),
        ("tcp", {"dst_ports": [[80, 80], [81, 80]]}, False),
    ):
        try:
            TrafficFilter(protocol=protocol, dst=["198.51.100.7"], **ports)
        except ValidationError:
            assert not good
        else:
            assert good
    target = {"id": "r", "tenant": "a", "instance": "one", "priority": 1, "filters": [{"dst": ["198.51.100.7"]}]}
    for action, to, good in (
        ("FORWARD", "10.64.0.2", True),
        ("DUPLICATE", None, False),
        ("DROP", "10.64.0.2", False),
        ("DROP", None, True),
    ):
        try:
            TrafficRule.model_validate({**target, "action": action, "to": to})
        except ValidationError:
            assert not good
        else:
            assert good


def test_subnets_of_a_pool():
    assert code_of(TenantNetworks, IPv4Network("10.64.0.0/25")) == "subnet-refused"
    assert code_of(TenantNetworks, IPv4Network("10.0.0.0/11")) == "subnet-refused"
    assert TenantNetworks(IPv4Network("10.0.0.0/12"))
    networks = TenantNetworks(IPv4Network("10.64.0.0/23"))
    assert code_of(networks.get, "a") == "tenant-unknown"
    for wrong in ("10.64.0.0/25", "10.64.2.0/24", "10.0.0.0/8", "fd00::/24"):
        assert code_of(networks.plan, "a", wrong) == "subnet-refused"
    first, new = networks.plan("a", "10.64.1.0/24")
    assert (new, first.index, str(first.gateway), first.bridge) == (True, 1, "10.64.1.1/24", "umb1")
    networks.add(first)
    assert networks.get("a") is first
    assert networks.plan("a", None) == (first, False)
    assert networks.plan("a", "10.64.1.0/24") == (first, False)
    assert code_of(networks.plan, "a", "10.64.0.0/24") == "subnet-refused"
    assert code_of(networks.plan, "b", "10.64.1.0/24") == "subnet-refused"
    second, _ = networks.plan("b", None)
    assert str(second.subnet) == "10.64.0.0/24"
    networks.add(second)
    assert code_of(networks.plan, "c", None) == "subnet-refused"
    networks.discard("b")
    assert networks.plan("c", None)[0].subnet == second.subnet


def named(rule, who="a", name="cam.a.example", kind="A"):
    address = "10.64.0.2" if kind == "A" else "2001:db8::1"
    return DnsRule(id=rule, tenant=who, instance="one", name=name, kind=kind, address=address)


def test_a_name_has_one_rule_for_each_kind_and_one_tenant():
    book = NameBook()
    book.put(named("d1"))
    book.check(named("d1"))
    book.check(named("d2", kind="AAAA"))
    for other in (named("d2"), named("d1", who="b"), named("d1", who="b", kind="AAAA")):
        assert code_of(book.check, other) == "dns-name-taken"
    book.put(named("d2", kind="AAAA"))
    assert code_of(book.check, named("d3", who="b")) == "dns-name-taken"
    assert code_of(book.check, named("d1", kind="AAAA")) == "dns-name-taken"
    assert {record.kind for record in book.records()} == {"A", "AAAA"}
    book.put(named("d1", name="two.a.example"))
    book.check(named("d3"))
    assert book.discard("a", "d1") == named("d1", name="two.a.example")
    assert book.discard("a", "d1") is None
    assert len(book) == 1


def test_a_name_points_at_what_its_tenant_has():
    def check(address, rules=(), kind="A"):
        check_dns_address(
            DnsRule(id="d", tenant="a", instance="one", name="a.example", kind=kind, address=address),
            {"10.64.0.2"},
            rules,
        )

    def forwarding(**changes):
        box = replace(BOX, dst=(int(IPv4Address("198.51.100.7")), int(IPv4Address("198.51.100.9"))))
        box = replace(box, direction=changes.pop("direction", Direction.IN))
        fields = {"tenant": "a", "id": "r", "priority": 1, "action": "FORWARD", "to": "10.64.0.2", "instance": "one"}
        return CompiledRule(**{**fields, **changes}, boxes=(box,))

    check("10.64.0.2")
    refused = "address-not-of-tenant"
    assert code_of(check, "10.64.0.3") == refused
    assert code_of(check, "2001:db8::1", [forwarding()], "AAAA") == refused
    for address, found in (("7", True), ("9", True), ("6", False), ("10", False)):
        if found:
            check(f"198.51.100.{address}", [forwarding(action="DROP"), forwarding()])
        else:
            assert code_of(check, f"198.51.100.{address}", [forwarding()]) == refused
    for other in ({"tenant": "b"}, {"action": "PASSTHROUGH"}, {"direction": Direction.OUT}):
        assert code_of(check, "198.51.100.7", [forwarding(**other)]) == refused


@pytest.mark.parametrize(
    ("name", "kind", "address"),
    [
        ("cam", "A", "10.64.0.2"),
        ("cam.example\nlocal_data x", "A", "10.64.0.2"),
        ("cam.example", "AAAA", "10.64.0.2"),
        ("cam.example", "A", "2001:db8::1"),
        ("cam.example", "TXT", "10.64.0.2"),
    ],
)
def test_records_that_are_none(name, kind, address):
    with pytest.raises(ResolverFailed):
        Record(name, kind, address, 5).line()
    assert Record("cam.example", "AAAA", "2001:DB8::1", 5).line() == "cam.example 5 IN AAAA 2001:db8::1"


def test_a_state_folder_whose_name_would_be_configuration():
    for name in ('/var/"x"', "/var/a b", "/var/a\nb", "relative"):
        assert code_of(Resolver, Path(name), IPv4Address("127.0.0.1")) == "resolver-failed"
    assert Resolver(Path("/var/lib/umec"), IPv4Address("127.0.0.1")).pid is None


PLATFORM = generate_private_key(SECP256R1())
CLAIMS = {
    "iss": "https://site.example/platform/v1", "iat": NOW.timestamp(), "exp": NOW.timestamp() + 60, "tenant": "a",
    "node": "pole-7", "instance": "one", "appd_sha256": "0" * 64, "repository": "a/probe",
    "digest": "sha256:" + "0" * 64, "policy_sha256": "0" * 64, "policies": ["admit-signed"],
}  # fmt: skip


def decide(now=NOW, *, key=PLATFORM, typ="umec-admission+jwt", **changes):
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    fields = {"instance": "one", "tenant": "a", "repository": "a/probe", "digest": CLAIMS["digest"]}
    spec = InstanceSpec(**fields, decision=sign_jwt(claims, key, typ=typ), blobs="/blobs")
    keys = KeySet([PLATFORM.public_key()])
    return verify_decision(spec, keys=keys, issuer=CLAIMS["iss"], node="pole-7", now=now)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://site.example/attest/v1"}, "decision-signature"),
        ({"typ": "at+jwt"}, "decision-signature"),
        ({"key": generate_private_key(SECP256R1())}, "decision-signature"),
        ({"policies": []}, "decision-signature"),
        ({"scope": "all"}, "decision-signature"),
        ({"now": NOW + timedelta(seconds=60)}, "decision-expired"),
        ({"now": NOW - timedelta(seconds=11)}, "decision-expired"),
        ({"exp": NOW.timestamp() + 3611}, "decision-expired"),
        ({"iat": -1.0}, "decision-signature"),
        ({"node": "pole-8"}, "decision-node"),
        ({"instance": "two"}, "decision-instance"),
        ({"tenant": "b"}, "decision-instance"),
        ({"digest": "sha256:" + "1" * 64}, "decision-digest"),
        ({"repository": "a/other"}, "decision-digest"),
    ],
)
def test_a_decision_that_differs_in_one_thing(changes, code):
    assert code_of(decide, **changes) == code
    admitted = decide()
    assert (admitted.instance, admitted.policies) == ("one", ("admit-signed",))


VERIFIER = generate_private_key(SECP256R1())


@pytest.fixture
def lease(tmp_path):
    """A lease of ten seconds, and what speaks to it."""
    terms = LeaseTerms(
        "pole-7", KeySet([VERIFIER.public_key()]), "https://site.example/attest/v1", timedelta(seconds=10)
    )
    made = Lease(terms, tmp_path / "standing.json")

    def say(standing, at=NOW, *, seq=1, now=None, to=made):
        entry = {"seq": seq, "node": "pole-7", "tenant": "a", "standing": standing, "generation": seq,
                 "changed_at": "2026-11-22T00:00:00Z"}  # fmt: skip
        claims = {"iss": terms.issuer, "iat": at.timestamp(), "after": 0, "last": seq, "node": "pole-7",
                  "standings": [entry]}  # fmt: skip
        to.renew(sign_jwt(claims, VERIFIER, typ="umec-standings+jwt"), now or at)

    def again():
        other = Lease(terms, tmp_path / "standing.json")
        other.recall()
        return other

    made.say, made.terms, made.again = say, terms, again
    return made


def test_a_lease_holds_for_its_time_and_not_longer(lease):
    assert code_of(lease.check, NOW) == "lease-expired"
    lease.say("trusted")
    assert lease.check(NOW + timedelta(seconds=10)).generation == 1
    assert code_of(lease.check, NOW + timedelta(seconds=10, microseconds=1)) == "lease-expired"
    # A clock that is set back does not lengthen it.
    lease._deadline = 0.0
    assert code_of(lease.check, NOW) == "lease-expired"


def test_what_was_signed_too_long_ago_or_before_something_newer_renews_nothing(lease, tmp_path):
    assert code_of(lease.say, "trusted", now=NOW + timedelta(seconds=10, microseconds=1)) == "standing-stale"
    lease.say("trusted", seq=2, now=NOW + timedelta(seconds=10))
    later = Lease(lease.terms, tmp_path / "standing.json")
    later.recall()
    for at, last in ((NOW - timedelta(seconds=1), 2), (NOW, 1)):
        lease_of = Lease(lease.terms, tmp_path / "standing.json")
        lease_of.recall()
        claims = {"iss": lease.terms.issuer, "iat": at.timestamp(), "after": 0, "last": last, "node": "pole-7",
                  "standings": [{"seq": last, "node": "pole-7", "tenant": "a", "standing": "trusted", "generation": 1,
                                 "changed_at": "2026-11-22T00:00:00Z"}]}  # fmt: skip
        statement = sign_jwt(claims, VERIFIER, typ="umec-standings+jwt")
        assert code_of(lease_of.renew, statement, NOW) == "standing-rollback"
    claims |= {"iat": NOW.timestamp(), "last": 2, "standings": [{**claims["standings"][0], "seq": 2}]}
    later.renew(sign_jwt(claims, VERIFIER, typ="umec-standings+jwt"), NOW)
    assert later.check(NOW).standing.value == "trusted"


def test_a_clock_that_was_set_back_is_no_end_of_statements(lease):
    lease.say("trusted", seq=3)
    earlier = NOW - timedelta(hours=1)
    # Within the clocks' difference an older statement is an older statement.
    near = NOW - timedelta(seconds=10)
    assert code_of(lease.say, "trusted", near, seq=3) == "standing-rollback"
    for one in (lease, lease.again()):
        # What is known may not be taken back, nor what is old now be said again.
        assert code_of(lease.say, "trusted", earlier, seq=2, to=one) == "standing-rollback"
        stale = earlier - timedelta(seconds=10, microseconds=1)
        assert code_of(lease.say, "trusted", stale, seq=3, now=earlier, to=one) == "standing-stale"
    for one in (lease, lease.again()):
        lease.say("trusted", earlier, seq=3, to=one)
        assert one.check(earlier).generation == 3
    # From then on time goes on from there.
    assert code_of(lease.say, "trusted", earlier - timedelta(seconds=1), seq=3, now=earlier) == "standing-rollback"


@pytest.mark.parametrize(
    ("standing", "check", "change", "admission"),
    [
        ("trusted", None, None, None),
        ("degraded", None, None, "standing-degraded"),
        ("lapsed", None, "standing-lapsed", "standing-lapsed"),
        ("untrusted", "standing-fallen", "standing-fallen", "standing-fallen"),
        ("quarantined", "standing-fallen", "standing-fallen", "standing-fallen"),
    ],
)
def test_what_a_standing_allows_on_a_host(lease, standing, check, change, admission):
    lease.say("trusted")
    if standing != "trusted":
        lease.say(standing, NOW + timedelta(seconds=1), seq=2)
    now = NOW + timedelta(seconds=2)
    for ask, code in ((lease.check, check), (lease.check_change, change), (lease.check_admission, admission)):
        if code is None:
            ask(now)
        else:
            assert code_of(ask, now) == code


def changed_manifest(tools, folder, **changes):
    made = tools.Image(folder / "blobs", [tools.tar_of(("file", b"content"))])
    descriptor = made.manifest["layers"][0]
    manifest = {**made.manifest, **{name: value for name, value in changes.items() if name != "layer"}}
    if "layer" in changes:
        manifest["layers"] = [{**descriptor, **changes["layer"]}]
    return made.folder, made.put(json.dumps(manifest).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"schemaVersion": 1},
        {"mediaType": "application/vnd.oci.image.index.v1+json"},
        {"layers": []},
        {"layer": {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}},
        {"layer": {"size": 0}},
        {"layer": {"size": 1024**3 + 1}},
        {"layer": {"size": True}},
        {"layer": {"size": 10.5}},
        {"layer": {"digest": "sha512:" + "0" * 64}},
        {"layer": {"digest": 7}},
    ],
)
def test_manifests_that_differ_in_one_thing(tmp_path, tools, changes):
    with pytest.raises(ImageInvalid) as refused:
        read_image(*changed_manifest(tools, tmp_path, **changes))
    assert ("not sha256" in refused.value.detail) is ("digest" in changes.get("layer", {}))
    for good in (
        {},
        {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        {"layer": {"size": 1024**3}},
    ):
        assert len(read_image(*changed_manifest(tools, tmp_path, **good)).layers) == 1


def test_as_many_layers_as_the_configuration_says_and_128_at_most(tmp_path, tools):
    layer = tools.tar_of(("file", b"content"))
    assert len(read_image(*_folder(tools.Image(tmp_path / "a", [layer] * 128))).layers) == 128
    assert code_of(read_image, *_folder(tools.Image(tmp_path / "b", [layer] * 129))) == "image-invalid"
    made = tools.Image(tmp_path / "c", [layer] * 2)
    digest = made.put(json.dumps({**made.manifest, "layers": made.manifest["layers"][:1]}).encode())
    assert code_of(read_image, made.folder, digest) == "image-invalid"
    assert code_of(read_image, *_folder(tools.Image(tmp_path / "d", []))) == "image-invalid"


def _folder(made):
    return made.folder, made.digest


@pytest.mark.parametrize(
    "config",
    [
        {"Entrypoint": ["/a", 7]},
        {"Entrypoint": ["/a\x00"]},
        {"Entrypoint": [["/a"]]},
        {"Env": [7]},
        {"Env": ["A=\x00"]},
        {"Env": ["1A=b"]},
        {"WorkingDir": "relative"},
        {"WorkingDir": "/a\x00"},
        {"WorkingDir": 7},
        {"User": "root:0:0"},
        {"User": "65536"},
        {"User": "1:65536"},
        {"User": 7},
    ],
)
def test_configurations_that_differ_in_one_thing(tmp_path, tools, config):
    layer = tools.tar_of(("file", b"content"))
    made = tools.Image(tmp_path / "a", [layer], config=config)
    with pytest.raises(ImageInvalid) as refused:
        read_image(*_folder(made))
    assert ("not a number" in refused.value.detail) is ("User" in config and "65536" not in str(config))
    good = {"Entrypoint": ["/a"], "Cmd": ["b"], "Env": ["A=b"], "WorkingDir": "/w", "User": "65535:1"}
    found = read_image(*_folder(tools.Image(tmp_path / "b", [layer], config=good))).config
    assert (found.args, found.env, found.cwd, found.user) == (("/a", "b"), ("A=b",), "/w", (65535, 1))
    for user, wanted in (("", None), ("root", None), ("0", None), ("0:7", None), ("7", (7, 7))):
        made = tools.Image(tmp_path / "c", [layer], config={"User": user})
        assert read_image(*_folder(made)).config.user == wanted


def test_no_container_is_a_user_of_the_host(tmp_path, tools):
    """By its number the kernel tells what the host starts, which it measures, from what applications start."""
    layer = tools.tar_of(("file", b"content"))
    spec = InstanceSpec(
        instance="one", tenant="a", decision="a.b.c", repository="a/b", digest="sha256:" + "0" * 64, blobs="/blobs"
    )
    for number, user in enumerate((0, 33, 899, *HOST_USERS, 906, 65534)):
        made = tools.Image(tmp_path / str(number), [layer], config={"Entrypoint": ["/a"], "User": f"{user}:{user}"})
        config = read_image(*_folder(made)).config
        what = process(spec, config, default_user=1_879_048_200, only_user=None)
        wanted = 1_879_048_200 if user == 0 or user in HOST_USERS else user
        assert (what.uid, what.gid) == (wanted, wanted)
        assert process(spec, config, default_user=1, only_user=0).uid == 0


def test_layers_are_the_octets_that_were_named(tmp_path, tools, monkeypatch):
    data = os.urandom(5000)
    made = tools.Image(tmp_path, [data])
    stored = made.path(made.layers[0]).stat().st_size
    plain = "sha256:" + hashlib.sha256(data).hexdigest()
    layer = Layer(made.layers[0], plain, stored, compressed=True)
    with open_layer(tmp_path, layer) as unpacked:
        assert unpacked.read() == data
    assert code_of(open_layer, tmp_path, replace(layer, size=stored - 1)) == "layer-digest"
    assert code_of(open_layer, tmp_path, replace(layer, diff_id="sha256:" + "0" * 64)) == "layer-digest"
    whole = made.put(data)
    with open_layer(tmp_path, Layer(whole, whole, 5000, compressed=False)) as same:
        assert same.read() == data
    assert code_of(open_layer, tmp_path, Layer(whole, plain[:-1] + "g", 5000, compressed=False)) == "layer-digest"
    broken = made.put(gzip.compress(data)[:-9])
    assert code_of(open_layer, tmp_path, Layer(broken, plain, 10_000, compressed=True)) == "image-invalid"
    monkeypatch.setattr(image_module, "MAX_UNPACKED", 5000)
    open_layer(tmp_path, layer).close()
    monkeypatch.setattr(image_module, "MAX_UNPACKED", 4999)
    assert code_of(open_layer, tmp_path, layer) == "image-invalid"


def unpacked(tools, folder, *entries, owners=True):
    folder.mkdir()
    unpack.unpack_layer(BytesIO(tools.tar_of(*entries)), folder, owners=owners)
    return folder


@pytest.mark.parametrize("owner", ["uid", "gid"])
def test_owners_are_numbers_up_to_65535(tmp_path, tools, owner):
    root = unpacked(tools, tmp_path / "good", ("file", {"uid": 65535, "gid": 65535}))
    assert ((root / "file").stat().st_uid, (root / "file").stat().st_gid) == (65535, 65535)
    for number in (65536, -1):
        entry = ("file", {owner: number, "type": tarfile.REGTYPE})
        data = io_of(entry)
        (tmp_path / f"bad{number}").mkdir()
        assert code_of(unpack.unpack_layer, data, tmp_path / f"bad{number}", owners=True) == "image-invalid"
    unpacked(tools, tmp_path / "mapped", ("file", {owner: 70000}), owners=False)


def io_of(entry):
    """A tar of one entry in the format of GNU, which has negative numbers too."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo(entry[0])
        for name, value in entry[1].items():
            setattr(info, name, value)
        archive.addfile(info)
    file.seek(0)
    return file


def test_paths_and_entries_have_their_bounds(tmp_path, tools, monkeypatch):
    deep = "/".join(["d" * 200] * 20)
    monkeypatch.setattr(unpack, "MAX_PATH", len(deep))
    unpacked(tools, tmp_path / "deep", (deep, b"x"))
    monkeypatch.setattr(unpack, "MAX_PATH", len(deep) - 1)
    assert code_of(unpacked, tools, tmp_path / "deeper", (deep, b"x")) == "image-invalid"
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 2)
    unpacked(tools, tmp_path / "two", ("a", b""), ("b", b""))
    assert code_of(unpacked, tools, tmp_path / "three", ("a", b""), ("b", b""), ("c", b"")) == "image-invalid"


def test_a_sparse_file_is_refused(tmp_path, tools):
    data = tools.tar_of(("file", b"x" * 512))
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:398], head[398:410] = b"00000000000\0", b"00000000000\0"
    head[483:495] = b"77777777777\0"
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head[:512])
    good = BytesIO(data)
    unpack.unpack_layer(good, tmp_path, owners=False)
    with pytest.raises(UmecError) as refused:
        unpack.unpack_layer(BytesIO(bytes(head[:512]) + bytes(1024)), tmp_path, owners=False)
    assert (refused.value.code, "device" in refused.value.detail) == ("image-invalid", True)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_or_a_pipe_is_refused_as_what_it_is(tmp_path, tools, kind):
    with pytest.raises(ImageInvalid, match="a device, a pipe"):
        unpacked(tools, tmp_path / "bad", ("file", {"type": kind, "devmajor": 1, "devminor": 3}))
    assert (unpacked(tools, tmp_path / "good", ("file", b"x")) / "file").read_bytes() == b"x"


def test_a_name_that_ends_in_the_middle_is_refused(tmp_path):
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("file")
        info.pax_headers = {"path": "fi\x00le"}
        made.addfile(info)
    file.seek(0)
    assert code_of(unpack.unpack_layer, file, tmp_path, owners=False) == "image-invalid"
    assert list(tmp_path.iterdir()) == []


def test_names_and_links_that_lead_nowhere(tmp_path, tools):
    hard, link = tarfile.LNKTYPE, tarfile.SYMTYPE
    refused = [
        [("hard", {"type": hard, "linkname": "."})],
        [("d", {"type": tarfile.DIRTYPE}), ("hard", {"type": hard, "linkname": "d"})],
        [("s", {"type": link, "linkname": "x"}), ("hard", {"type": hard, "linkname": "s"})],
        [("hard", {"type": hard, "linkname": "missing"})],
        [("a/.wh.", b"")],
        [("a/.wh..", b"")],
        [("a/.wh...", b"")],
    ]
    for number, entries in enumerate(refused):
        assert code_of(unpacked, tools, tmp_path / str(number), *entries) == "image-invalid"
    root = unpacked(tools, tmp_path / "good", ("./f", b"x"), ("hard", {"type": hard, "linkname": "f"}), (".", {}))
    assert (root / "hard").read_bytes() == b"x"
    assert (root / "f").stat().st_nlink == 2


def test_a_kernel_that_cannot_confine_paths_unpacks_nothing(tmp_path, tools, monkeypatch):
    monkeypatch.setattr(unpack, "_OPENAT2", 100_000)  # a system call that no kernel has
    with pytest.raises(UmecError) as refused:
        unpacked(tools, tmp_path / "root", ("file", b"x"))
    assert "openat2" in refused.value.detail
    monkeypatch.undo()
    assert struct.calcsize("=QQQ") == 24
    assert (unpacked(tools, tmp_path / "again", ("file", b"x")) / "file").read_bytes() == b"x"


def test_no_descriptor_is_left_open(tmp_path, tools):
    before = len(list(Path("/proc/self/fd").iterdir()))
    unpacked(tools, tmp_path / "good", ("d/file", b"x"), ("hard", {"type": tarfile.LNKTYPE, "linkname": "d/file"}))
    for number in range(5):
        assert code_of(unpacked, tools, tmp_path / str(number), ("a/.wh.", b"")) == "image-invalid"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
