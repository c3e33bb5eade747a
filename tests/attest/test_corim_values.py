"""CoRIM: what is read, what is refused because it would mean something else, and that ours is read back."""

from datetime import timedelta

import pytest
from cbor2 import CBORTag, dumps, loads
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.corim import CorimRefused, load_cbor, read_corim, write_corim
from umec_attest.corim.reader import PARSEC
from umec_attest.ima import parse_runtime_policy
from umec_attest.reference import FirmwareModel
from umec_attest.tpm.algorithms import HashAlgorithm

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
OWNER = generate_private_key(SECP256R1()).public_key()
ONE, TWO = b"\x01" * 32, b"\x02" * 32
UUID = CBORTag(37, bytes(16))
CLASS = {0: {0: UUID, 1: "ACME Inc."}}


def registers(values):
    """A measurement of integrity registers: PCR -> digests."""
    return {1: {14: {pcr: [[1, value]] for pcr, value in values.items()}}}


def comid(*triples, **changes):
    made = {1: {0: "tag"}, 4: {0: list(triples)}} | {int(key[1:]): value for key, value in changes.items()}
    return CBORTag(506, dumps({key: value for key, value in made.items() if value is not ...}))


def rim(*tags, **changes):
    made = {0: "acme", 1: list(tags)} | {int(key[1:]): value for key, value in changes.items()}
    return dumps(CBORTag(501, {key: value for key, value in made.items() if value is not ...}))


def triple(*measurements, environment=CLASS):
    return [environment, list(measurements) or [registers({4: ONE})]]


GOOD = rim(comid(triple()))


def test_registers_of_one_class():
    draft = read_corim(rim(comid(triple(registers({0: ONE, 4: TWO}))), k4={0: CBORTag(1, 1), 1: CBORTag(1, 2**31)}))
    assert draft.values == {SHA256: {0: {ONE}, 4: {TWO}}}
    assert (draft.models, draft.image_sha256, draft.left_out) == ({}, None, ())
    assert (draft.issued.timestamp(), draft.expires.timestamp()) == (1, 2**31)
    assert read_corim(GOOD).expires is None


def test_measurements_of_one_pcr_are_alternatives():
    draft = read_corim(rim(comid(triple(registers({4: ONE}), registers({4: TWO})), triple(registers({7: ONE})))))
    assert draft.values == {SHA256: {4: {ONE, TWO}, 7: {ONE}}}
    both = {1: {14: {4: [[1, ONE], [7, bytes(48)]]}}}
    assert read_corim(rim(comid(triple(both)))).values == {SHA256: {4: {ONE}}, SHA384: {4: {bytes(48)}}}


def test_a_model_is_a_firmware_build():
    lamp = {0: {0: UUID, 1: "ACME Inc.", 2: "lamp 1.0"}}
    draft = read_corim(rim(comid(triple(), triple(registers({0: TWO}), environment=lamp))))
    assert draft.values == {SHA256: {4: {ONE}}}
    assert draft.models == {"lamp 1.0": {SHA256: {0: {TWO}}}}


def test_informational_parts_are_read_over():
    entities = [{0: "ACME Inc.", 1: CBORTag(32, "https://acme.example"), 2: [0]}]
    read_corim(rim(comid(triple(), k0="en", k2=entities), k5=entities))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (dumps({0: "acme", 1: [comid(triple())]}), "corim-invalid"),  # no tag
        (dumps(CBORTag(502, loads(GOOD).value)), "corim-invalid"),
        (dumps(CBORTag(18, [b"", {}, GOOD, b""])), "corim-unsupported"),  # signed
        (dumps(CBORTag(501, [1])), "corim-invalid"),
        (dumps(CBORTag(501, {"0": 1})), "corim-invalid"),
        (dumps(CBORTag(501, {False: "acme", 1: [comid(triple())]})), "corim-invalid"),
        (rim(comid(triple()), k0=...), "corim-invalid"),
        (rim(), "corim-invalid"),
        (rim(comid(triple()), k1=comid(triple())), "corim-invalid"),
        (rim(comid(triple()), k2=[{0: CBORTag(32, "https://acme.example")}]), "corim-unsupported"),  # dependent
        (rim(comid(triple()), k6=1), "corim-invalid"),
        (rim(comid(triple()), k3=CBORTag(32, "https://acme.example")), "corim-profile-unsupported"),
        (rim(comid(triple()), k3="https://acme.example"), "corim-profile-unsupported"),
        (rim(comid(triple()), k3=CBORTag(111, b"\x2a")), "corim-profile-unsupported"),
        (rim(comid(triple()), k4={}), "corim-invalid"),
        (rim(comid(triple()), k4={1: 5}), "corim-invalid"),
        (rim(comid(triple()), k4={1: CBORTag(1, 1.5)}), "corim-invalid"),
        (rim(comid(triple()), k4={1: CBORTag(1, 2**62)}), "corim-invalid"),
        (rim(CBORTag(505, b"")), "corim-unsupported"),  # CoSWID
        (rim(b""), "corim-unsupported"),
        (rim(CBORTag(506, "text")), "corim-invalid"),
        (rim(CBORTag(506, b"\xff")), "corim-invalid"),
        (rim(comid(triple(), k1=...)), "corim-invalid"),
        (rim(comid(triple(), k1={})), "corim-invalid"),
        (rim(comid(triple(), k3=[{0: "other", 1: 1}])), "corim-unsupported"),  # replaces another tag
        (rim(comid(k4={}), comid(triple())), "corim-invalid"),
        (rim(comid(k4={0: []})), "corim-invalid"),
        (rim(comid(k4={0: [triple()], 1: [triple()]})), "corim-unsupported"),  # endorsed
        (rim(comid(k4={0: [triple()], 3: [[CLASS, ["key"]]]})), "corim-unsupported"),
        (rim(comid(k4={99: [triple()]})), "corim-invalid"),
        (rim(comid([CLASS])), "corim-invalid"),
        (rim(comid([CLASS, []])), "corim-invalid"),
    ],
)
def test_one_fault_in_the_frame(refused, data, code):
    with refused(code):
        read_corim(data)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (triple(environment={}), "corim-invalid"),
        (triple(environment={0: {}}), "corim-invalid"),
        (triple(environment={0: {9: 1}}), "corim-invalid"),
        (triple(environment={0: {0: "name"}}), "corim-invalid"),
        (triple(environment={0: {0: CBORTag(550, b"")}}), "corim-invalid"),
        (triple(environment={0: {0: CBORTag(37, "text")}}), "corim-invalid"),
        (triple(environment={0: {1: 7}}), "corim-invalid"),
        (triple(environment={0: {2: 7}}), "corim-invalid"),
        (triple(environment={0: {2: "lamp\n"}}), "corim-invalid"),
        (triple(environment={0: {1: "ACME", 3: 1}}), "corim-unsupported"),  # a layer
        (triple(environment={**CLASS, 1: UUID}), "corim-unsupported"),  # one device
        (triple(environment={**CLASS, 2: UUID}), "corim-unsupported"),  # a group
        (triple({}), "corim-invalid"),
        (triple({0: 4, 1: registers({4: ONE})[1]}), "corim-unsupported"),  # a key whose meaning no profile gives
        (triple({1: {}}), "corim-invalid"),
        (triple({1: {2: [[1, ONE]]}}), "corim-unsupported"),
        (triple({1: {14: {4: [[1, ONE]]}, 1: 5}}), "corim-unsupported"),  # only with that security version
        (triple({1: {14: {4: [[1, ONE]]}, 99: 5}}), "corim-invalid"),
        (triple({**registers({4: ONE}), 2: ["key"]}), "corim-unsupported"),  # only if authorized by
        (triple({1: {14: {}}}), "corim-invalid"),
        (triple({1: {14: [4]}}), "corim-invalid"),
        (triple({1: {14: {"4": [[1, ONE]]}}}), "corim-invalid"),
        (triple(registers({16: ONE})), "corim-invalid"),
        (triple(registers({-1: ONE})), "corim-invalid"),
        (triple({1: {14: {4: []}}}), "corim-invalid"),
        (triple({1: {14: {4: [[1]]}}}), "corim-invalid"),
        (triple({1: {14: {4: [[1, ONE], [1, TWO]]}}}), "corim-invalid"),  # both at once
        (triple({1: {14: {4: [[1, ONE[1:]]]}}}), "corim-invalid"),
        (triple({1: {14: {4: [[1, "x" * 32]]}}}), "corim-invalid"),
        (triple({1: {14: {4: [[True, ONE]]}}}), "corim-unsupported"),
        (triple({1: {14: {4: [["sha-256", ONE]]}}}), "corim-unsupported"),
        (triple({1: {14: {4: [[6, ONE]]}}}), "corim-unsupported"),
        (triple(registers({0: ONE, 4: ONE}), registers({4: TWO})), "corim-unsupported"),  # 4: TWO with which 0?
        (triple(registers({4: TWO}), registers({0: ONE, 4: ONE})), "corim-unsupported"),
        (triple(registers({4: TWO}), {1: {14: {4: [[1, ONE], [7, bytes(48)]]}}}), "corim-unsupported"),
    ],
)
def test_one_fault_in_a_triple(refused, record, code):
    with refused(code):
        read_corim(rim(comid(record)))
    read_corim(GOOD)


def test_values_of_two_classes(refused):
    for other in ({0: {0: CBORTag(37, b"\x01" * 16), 1: "ACME Inc."}}, {0: {0: UUID, 1: "Other"}}):
        with refused("corim-unsupported"):
            read_corim(rim(comid(triple(), triple(environment=other))))


# --- Parsec's profile ------------------------------------------------------------------------------------------------

PLAIN = {0: {0: UUID}}


def parsec(*measurements, keys=None):
    triples = {0: [[PLAIN, list(measurements)]]} if measurements else {}
    triples |= {} if keys is None else {3: [keys]}
    return rim(comid(k4=triples), k3=CBORTag(32, PARSEC))


KEY = CBORTag(554, "-----BEGIN…")


def key_triple(environment=None, keys=(KEY,)):
    return [{0: {0: UUID}, 1: CBORTag(550, bytes(33))} if environment is None else environment, list(keys)]


def test_digests_under_the_number_of_the_pcr():
    draft = read_corim(parsec({0: 0, 1: {2: [[1, ONE], [7, bytes(48)]]}}, keys=key_triple()))
    assert draft.values == {SHA256: {0: {ONE}}, SHA384: {0: {bytes(48)}}}
    assert draft.left_out == ("attestation keys (nodes enrol theirs): 1",)


@pytest.mark.parametrize(
    "measurement",
    [{1: {2: [[1, ONE]]}}, {0: UUID, 1: {2: [[1, ONE]]}}, {0: 0}, {0: 0, 1: {}}, {0: 99, 1: {2: [[1, ONE]]}}],
)
def test_one_fault_in_such_a_measurement(refused, measurement):
    with refused("corim-invalid"):
        read_corim(parsec(measurement))


@pytest.mark.parametrize(
    "keys",
    [
        key_triple({}),
        key_triple({0: {0: UUID}}),
        key_triple({0: {1: "ACME"}, 1: CBORTag(550, bytes(33))}),
        key_triple({0: {0: CBORTag(111, bytes(16))}, 1: CBORTag(550, bytes(33))}),
        key_triple({0: {0: CBORTag(37, bytes(15))}, 1: CBORTag(550, bytes(33))}),
        key_triple({0: {0: UUID}, 1: CBORTag(37, bytes(33))}),
        key_triple({0: {0: UUID}, 1: CBORTag(550, bytes(32))}),
        key_triple({0: {0: UUID}, 1: "name"}),
        key_triple({0: {0: UUID}, 1: CBORTag(550, "x" * 33)}),
        key_triple(keys=[]),
        key_triple(keys=[CBORTag(554, "a"), CBORTag(554, "b")]),
        key_triple(keys=[CBORTag(554, b"a")]),
        key_triple(keys=["a"]),
        [PLAIN],
    ],
)
def test_one_fault_in_a_key_triple(refused, keys):
    good = {0: 0, 1: {2: [[1, ONE]]}}
    read_corim(parsec(good, keys=key_triple()))
    with refused("corim-invalid"):
        read_corim(parsec(good, keys=keys))


def test_keys_alone_are_no_reference(refused):
    with refused("corim-invalid"):
        read_corim(parsec(keys=key_triple()))


# --- CBOR ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x02",  # trailing
        b"\x18",  # cut
        b"\xa2\x01\x02\x01\x03",  # a key twice
        b"\x9f\x01\xff",  # indefinite
        b"\x5f\x41a\xff",
        b"\x61\xff",  # no UTF-8
        b"\x9b\x00\x00\x00\x7f\xff\xff\xff\xff",  # longer than the bytes
        b"\x81" * 30 + b"\x01",
        b"\x5a\x00\x10\x00\x00" + bytes(1024 * 1024),  # well-formed, and too large
    ],
)
def test_what_is_no_strict_cbor(refused, data):
    with refused("corim-invalid"):
        load_cbor(data)


def test_tags_stay_tags():
    """What the library would make dates, UUIDs, regular expressions, references or big numbers of."""
    for number in (*range(1100), 43000, 43001, 55799, 65535):
        head = bytes([0xC0 + number]) if number < 24 else b"\xda" + number.to_bytes(4, "big")
        assert load_cbor(head + b"\x01") == CBORTag(number, 1)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_item_or_refused(data):
    try:
        load_cbor(data)
    except CorimRefused:
        return


@given(data=st.data())
def test_any_change_of_a_good_one_is_read_or_refused(data):
    good = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_corim(bytes(good))
    except CorimRefused:
        return


# --- ours ------------------------------------------------------------------------------------------------------------


def test_ours_is_read_back(kit):
    values = {SHA256: {4: [ONE, TWO], 7: [ONE]}, SHA384: {4: [bytes(48)]}}
    models = {
        name: FirmwareModel({SHA256: {0: frozenset({value})}}, {"crtm-version-invalid": "why"} if value == ONE else {})
        for name, value in (("lamp-1.0", ONE), ("lamp-1.1", TWO))
    }
    runtime = parse_runtime_policy({"files": {"/usr/bin/true": ["ab" * 32]}})
    ours = kit.make_reference({}, pcrs=values, models=models, ignored={12: "credentials"}, runtime=runtime, version=7)
    written, unsaid = write_corim(ours)
    draft = read_corim(written)
    assert draft.values == ours.pcrs
    assert draft.models == {name: model.pcrs for name, model in models.items()}
    assert (draft.image_sha256, draft.issued) == (ours.subject_sha256, kit.NOW)
    assert (draft.expires, draft.left_out) == (kit.NOW + timedelta(days=30), ())
    assert unsaid == (
        "PCR 12 is ignored: credentials",
        "crtm-version-invalid is excused for lamp-1.0",
        "what may run after the boot",
    )
    owned = kit.make_reference({4: ONE}, owner=OWNER)
    assert write_corim(owned)[1] == ("who its owner is: to whose approvals node keys have to be bound",)
    plain, nothing = write_corim(kit.make_reference({4: ONE}))
    assert (read_corim(plain).values, nothing) == ({SHA256: {4: {ONE}}}, ())
    assert loads(loads(plain).value[1][0].value)[1] == {0: "edge", 1: 1}


@given(
    st.dictionaries(
        st.sampled_from([0, 1, 4, 7, 11]),
        st.frozensets(st.binary(min_size=32, max_size=32), min_size=1, max_size=3),
        min_size=1,
    )
)
def test_any_values_come_back(kit, values):
    written, _ = write_corim(kit.make_reference({}, pcrs={SHA256: values}))
    assert read_corim(written).values == {SHA256: values}
