"""Descriptors and packages: everything else than one good descriptor is refused with one error."""

import io
import json
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umec_platform.errors import AppdInvalid, PackageInvalid
from umec_platform.packages.appd import MAX_APPD, appd_sha256, parse_appd, parse_image_reference
from umec_platform.packages.archive import read_package

BUSY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
DIGEST = "sha256:" + "ab" * 32
RULE = {
    "trafficRuleId": "r1",
    "filterType": "FLOW",
    "priority": 1,
    "trafficFilter": [{"dstAddress": ["203.0.113.10"]}],
    "action": "DROP",
}
NAME = {"dnsRuleId": "d1", "domainName": "a.harbour.example", "ipAddressType": "IP_V4", "ipAddress": "0.0.0.0"}  # noqa: S104


def descriptor(**members: Any) -> dict[str, Any]:
    document = {
        "appDId": "hello-1",
        "appName": "hello",
        "appProvider": "harbour",
        "appSoftVersion": "1.0",
        "appDVersion": "1",
        "mecVersion": ["3.1.1"],
        "swImageDescriptor": [{"swImage": f"harbour/hello@{DIGEST}"}],
        "appTrafficRule": [RULE],
        "appDNSRule": [NAME],
        "requestedPermissions": ["mec:app"],
    }
    return {**document, **members}


def package(*entries: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return content.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        {"appDId": ""},
        {"appDId": "../x"},
        {"swImageDescriptor": []},
        {"swImageDescriptor": [{"swImage": "harbour/hello:latest"}]},
        {"swImageDescriptor": [{"swImage": f"hello@{DIGEST}"}]},
        {"swImageDescriptor": [{"swImage": f"harbour/hello@{DIGEST}"}] * 2},
        {"appTrafficRule": [RULE, RULE]},
        {"appTrafficRule": [{**RULE, "priority": 256}]},
        {"appTrafficRule": [{**RULE, "action": "ALLOW"}]},
        {"appDNSRule": [NAME, NAME]},
        {"appDNSRule": [{**NAME, "ttl": -1}]},
        {"requestedPermissions": ["mec:app", "mec:app"]},
        {"mecVersion": []},
    ],
)
def test_a_faulty_descriptor_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(AppdInvalid) as refusal:
        parse_appd(json.dumps(descriptor(**members)).encode())
    assert refusal.value.code == "appd-invalid"
    assert parse_appd(json.dumps(descriptor()).encode()).app_d_id == "hello-1"


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"a":1,"a":2}', b'{"x":NaN}', b"[" * 5000 + b"]" * 5000, b" " * (MAX_APPD + 1)],
)
def test_what_is_no_plain_json_is_refused(content: bytes) -> None:
    with pytest.raises(AppdInvalid):
        parse_appd(content)


def test_unknown_members_and_defaults_survive_a_round_trip() -> None:
    appd = parse_appd(json.dumps(descriptor(appLatency={"maxLatency": 5}, mecVersion="3.1.1")).encode())
    assert appd.wire()["appLatency"] == {"maxLatency": 5}
    assert appd.wire()["mecVersion"] == ["3.1.1"]
    again = parse_appd(json.dumps(appd.wire()).encode())
    assert again == appd
    assert appd_sha256(again) == appd_sha256(appd)
    other = parse_appd(json.dumps(descriptor(appSoftVersion="1.1")).encode())
    assert appd_sha256(other) != appd_sha256(appd)
    assert (appd.image.tenant, appd.image.repository, appd.image.digest) == ("harbour", "harbour/hello", DIGEST)


GOOD = json.dumps(descriptor()).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"PK",
        package(),
        package(("sub/appd.json", GOOD)),
        package(("appd.json", b" " * (MAX_APPD + 1))),
        package(("appd.json", GOOD), ("appd.json/", b"")).replace(b"appd.json/", b"appd.jsonx")[:-30],
        package(*((f"f{number}", b"") for number in range(1025)), ("appd.json", GOOD)),
    ],
)
def test_what_is_no_package_is_refused(content: bytes) -> None:
    with pytest.raises(PackageInvalid) as refusal:
        read_package(content)
    assert refusal.value.code == "package-invalid"
    assert read_package(package(("appd.json", GOOD), ("README", b"hi"))).app_name == "hello"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_descriptors_are_none() -> None:
    with pytest.raises(PackageInvalid):
        read_package(package(("appd.json", GOOD), ("appd.json", GOOD)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@BUSY_MACHINE
@given(st.dictionaries(st.sampled_from(sorted(descriptor())), json_values, max_size=3))
def test_any_descriptor_is_read_or_refused(members: dict[str, Any]) -> None:
    try:
        appd = parse_appd(json.dumps(descriptor(**members)).encode())
    except AppdInvalid:
        return
    assert parse_appd(json.dumps(appd.wire()).encode()) == appd


@BUSY_MACHINE
@given(st.binary(max_size=200))
def test_any_bytes_are_a_package_or_refused(content: bytes) -> None:
    with pytest.raises((PackageInvalid, AppdInvalid)):
        read_package(content)


PACKED = package(("appd.json", GOOD))


@BUSY_MACHINE
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_a_package_with_a_changed_byte_is_read_or_refused(position: int, change: int) -> None:
    changed = bytearray(PACKED)
    changed[position] ^= change
    try:
        read_package(bytes(changed))
    except (PackageInvalid, AppdInvalid):
        return


@BUSY_MACHINE
@given(st.text(max_size=100))
def test_any_text_is_an_image_reference_or_refused(text: str) -> None:
    try:
        parse_image_reference(text)
    except AppdInvalid:
        return
