"""Runtime policies: what a signer may say of the files of an image, and what nobody could mean."""

import datetime as dt
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.bootlog import Finding
from umec_attest.errors import ImaInvalid, ReferenceRefused
from umec_attest.ima import ImaCheckpoint, parse_runtime_policy
from umec_attest.ima.paths import measured_path, parse_pattern

DIGEST = "ab" * 32
GOOD = {"files": {"/usr/bin/true": [DIGEST]}}


def pem(key):
    public = key.public_key() if hasattr(key, "public_key") else key
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


def certificate(key, identifier=None):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ima")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    )
    builder = builder.not_valid_before(start).not_valid_after(start + dt.timedelta(days=1))
    if identifier is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(identifier), critical=False)
    return builder.sign(key, hashes.SHA256())


def test_a_policy_is_what_it_says_again(key):
    other = ec.generate_private_key(ec.SECP384R1())
    said = {
        "files": {"/usr/bin/true": [DIGEST, "cd" * 48], "/usr/bin/false": ["ef" * 64]},
        "exclude": ["/var/lib/app/**", "/run/a*z"],
        "buffers": {"kexec-cmdline": [DIGEST]},
        "keys": [pem(key)],
        "revoked_keys": [pem(other)],
        "violations": "warn",
        "kexec": "allow",
    }
    policy = parse_runtime_policy(said)
    again = parse_runtime_policy(policy.to_json())
    assert again == policy
    assert policy.to_json() == {**said, "exclude": sorted(said["exclude"])}
    assert len({policy.sha256, parse_runtime_policy(GOOD).sha256}) == 2
    assert parse_runtime_policy({**said, "exclude": said["exclude"][::-1]}).sha256 == policy.sha256


def test_what_is_left_out_is_strict():
    policy = parse_runtime_policy(GOOD)
    assert (policy.violations, policy.kexec, policy.exclude, dict(policy.keys)) == ("refuse", "refuse", (), {})


@pytest.mark.parametrize("empty", [{}, {"files": {}}, {"exclude": ["/run/**"]}, {"buffers": {"a": [DIGEST]}}])
def test_a_policy_that_names_nothing(empty, refused):
    with refused("reference-empty"):
        parse_runtime_policy(empty)
    assert parse_runtime_policy(empty | GOOD)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        GOOD | {"unknown": 1},
        GOOD | {"violations": "ignore"},
        GOOD | {"kexec": "warn"},
        {"files": {"/usr/bin/true": []}},
        {"files": {"/usr/bin/true": [f"{n:064x}" for n in range(65)]}},
        {"files": {"/usr/bin/true": [DIGEST.upper()]}},
        {"files": {"/usr/bin/true": ["ab" * 20]}},
        {"files": {"/usr/bin/true": ["ab" * 16]}},
        {"files": {"/usr/bin/true": ["ab" * 32 + " "]}},
        {"files": {"/usr/bin/true": ["sha1:" + "ab" * 20]}},
        {"files": {"usr/bin/true": [DIGEST]}},
        {"files": {"": [DIGEST]}},
        {"files": {"/": [DIGEST]}},
        {"files": {"//usr": [DIGEST]}},
        {"files": {"/usr/": [DIGEST]}},
        {"files": {"/usr/../bin": [DIGEST]}},
        {"files": {"/usr/./bin": [DIGEST]}},
        {"files": {"/usr/..": [DIGEST]}},
        {"files": {"/usr\n": [DIGEST]}},
        {"files": {"/usr\0": [DIGEST]}},
        {"files": {"/usr\x7f": [DIGEST]}},
        {"files": {"/usr\x9b": [DIGEST]}},
        {"files": {"/usr/my tool": [DIGEST]}},
        {"files": {"/\ud800": [DIGEST]}},
        {"files": {"/" + "a" * 4096: [DIGEST]}},
        GOOD | {"exclude": ["*"]},
        GOOD | {"exclude": ["/*"]},
        GOOD | {"exclude": ["/**"]},
        GOOD | {"exclude": ["/u*/bin"]},
        GOOD | {"exclude": ["/usr/*a*"]},
        GOOD | {"exclude": ["/usr/**/bin"]},
        GOOD | {"exclude": ["/usr/***"]},
        GOOD | {"exclude": ["/usr/a**"]},
        GOOD | {"exclude": ["/usr/../**"]},
        GOOD | {"exclude": [f"/usr/{n}" for n in range(257)]},
        GOOD | {"buffers": {"": [DIGEST]}},
        GOOD | {"buffers": {"a b": [DIGEST]}},
        GOOD | {"buffers": {"a": []}},
        GOOD | {"keys": ["no key"]},
        GOOD | {"keys": ["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]},
        GOOD | {"keys": ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]},
    ],
)
def test_what_no_policy_says(wrong, refused):
    with refused("reference-invalid"):
        parse_runtime_policy(wrong)


def test_names_and_patterns_that_policies_do_have():
    names = ["/a", "/usr/bin/..a", "/usr/bin/...", "/usr/bin/[", "/usr/bin/g++", "/usr/é", "/" + "a" * 4095]
    policy = parse_runtime_policy({"files": {name: [DIGEST] for name in names}})
    assert [name[:-1].decode() for name in policy.files] == sorted(names)
    assert parse_runtime_policy(GOOD | {"exclude": ["/usr/*", "/usr/a*b/**", "/usr"]})


def test_keys_that_are_too_weak_or_of_another_kind(key, refused):
    weak = [
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - what is to be refused
        rsa.generate_private_key(3, 2048),
        ec.generate_private_key(ec.SECP224R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    for each in weak:
        with refused("reference-invalid"):
            parse_runtime_policy(GOOD | {"keys": [pem(each)]})
    with refused("reference-invalid"):
        parse_runtime_policy(GOOD | {"keys": [pem(key) + pem(key)]})
    with refused("reference-invalid"):
        parse_runtime_policy(GOOD | {"keys": [pem(key) + " " * 16 * 1024]})
    for strong in (rsa.generate_private_key(65537, 2048), key, ec.generate_private_key(ec.SECP521R1())):
        assert len(parse_runtime_policy({"keys": [pem(strong)]}).keys) == 1


def test_two_keys_by_one_identifier(key, refused):
    """A signature names four bytes of a key: they have to tell which one."""
    other = ec.generate_private_key(ec.SECP256R1())
    mine = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    double = certificate(other, mine).public_bytes(Encoding.PEM).decode()
    for wrong in (
        {"keys": [pem(key), pem(key)]},
        {"keys": [pem(key), double]},
        {"keys": [pem(key)], "revoked_keys": [pem(key)]},
    ):
        with refused("reference-invalid"):
            parse_runtime_policy(wrong)
    assert parse_runtime_policy({"keys": [pem(key)], "revoked_keys": [pem(other)]})


def test_a_certificate_goes_by_the_identifier_that_it_states(key):
    """The kernel takes it from the certificate; evmctl computes it from the key."""
    computed = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest[-4:]
    stated = certificate(key, b"\x01" * 16 + b"name").public_bytes(Encoding.PEM).decode()
    plain = certificate(key).public_bytes(Encoding.PEM).decode()
    assert set(parse_runtime_policy({"keys": [stated]}).keys) == {computed, b"name"}
    assert set(parse_runtime_policy({"keys": [plain]}).keys) == {computed}


@pytest.mark.parametrize(
    ("pattern", "within", "without"),
    [
        ("/var/lib", ["/var/lib"], ["/var/lib/x", "/var/li", "/var", "/x/var/lib", "/var/libx"]),
        ("/var/lib/**", ["/var/lib/x", "/var/lib/x/y"], ["/var/lib", "/var/libx/y", "/x/var/lib/y", "/var"]),
        ("/run/a*z", ["/run/az", "/run/abz"], ["/run/a", "/run/z", "/run/azb", "/run/a/z", "/run/xaz"]),
        ("/run/aa*a", ["/run/aaa", "/run/aaba"], ["/run/aa"]),
        ("/run/*", ["/run/x"], ["/run", "/run/x/y", "/runx/y"]),
        ("/lib/*.so/**", ["/lib/a.so/x", "/lib/.so/x/y"], ["/lib/a.so", "/lib/a.soo/x"]),
        ("/usr/a.c", ["/usr/a.c"], ["/usr/abc"]),
    ],
)
def test_patterns_are_anchored(pattern, within, without):
    parsed = parse_pattern(pattern)
    assert all(parsed.matches(path.encode().split(b"/")[1:]) for path in within)
    assert not any(parsed.matches(path.encode().split(b"/")[1:]) for path in without)


def test_no_path_makes_a_pattern_slow():
    """What makes a regular expression backtrack for ever: many wildcards, and a path that nearly matches."""
    pattern = parse_pattern("/a" + "/a*a" * 1000 + "/**")
    path = (b"/a" + b"/aaaa" * 999 + b"/ab")[:4096].split(b"/")[1:]
    start = time.process_time()
    assert not any(pattern.matches(path) for _ in range(100))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"x",
        b"/",
        b"/a\nb",
        b"/a\0b",
        b"/a/../b",
        b"/a/./b",
        b"/..",
        b"//a",
        b"/a/",
        b"/a b",
        b"/\xff",
        b"/\xc2\x9b",
        b"/" + b"a" * 4096,
    ],
)
def test_measured_names_that_are_no_paths(name):
    assert measured_path(name) is None
    assert measured_path(b"/a/..b") == "/a/..b"
    assert measured_path(b"/" + b"a" * 4095)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([DIGEST, "/a/**", "/a", "refuse"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("/a"), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["files", "exclude", "buffers", "keys", "violations", "x"]), json_values))
def test_any_value_gives_a_policy_or_the_one_error(value):
    try:
        assert parse_runtime_policy(value).sha256
    except ReferenceRefused:
        return


def test_a_checkpoint_is_what_it_says_again():
    findings = (Finding("ima-violation", "a"), Finding("ima-file-unknown", "b", "c", "d"))
    checkpoint = ImaCheckpoint(3, 100, bytes(range(32)), "ab" * 32, findings)
    assert ImaCheckpoint.from_json(checkpoint.to_json()) == checkpoint


@pytest.mark.parametrize(
    "wrong",
    [
        {"pcr": "00" * 20},
        {"pcr": "x"},
        {"pcr": None},
        {"entries": -1},
        {"entries": True},
        {"entries": "1"},
        {"reset_count": -1},
        {"findings": [{"id": "x"}]},
        {"findings": None},
        {"policy_sha256": None},
        {"restart_count": -1},
        {"unknown": 1},
    ],
)
def test_what_is_no_checkpoint(wrong, refused):
    good = ImaCheckpoint(3, 100, bytes(range(32)), "ab" * 32).to_json()
    for value in (good | wrong, [], None, {}):
        with refused("ima-invalid"):
            ImaCheckpoint.from_json(value)


@given(json_values)
def test_any_value_gives_a_checkpoint_or_the_one_error(value):
    try:
        assert ImaCheckpoint.from_json(value)
    except ImaInvalid:
        return


def test_what_is_required_is_a_listed_file(refused):
    listed = {"files": {"/etc/a": ["ab" * 32], "/etc/b": ["cd" * 32]}}
    plain, needed = parse_runtime_policy(listed), parse_runtime_policy(listed | {"required": ["/etc/b", "/etc/b"]})
    assert (plain.required, needed.required) == ((), (b"/etc/b\0",))
    assert "required" not in plain.to_json()
    assert parse_runtime_policy(needed.to_json()) == needed
    assert needed.sha256 != plain.sha256
    with refused("reference-invalid"):
        parse_runtime_policy(listed | {"required": ["/etc/c"]})
