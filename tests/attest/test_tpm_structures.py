"""TPM structures: any bytes give a value or the one error, values survive the round trip, and tpm2-tss agrees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss.types import TPM2B_PUBLIC, TPML_PCR_SELECTION, TPMS_ATTEST, TPMT_PUBLIC, TPMT_SIGNATURE

from umec_attest.digests import parse_pcr_values
from umec_attest.errors import PcrValuesInvalid, TpmInvalid
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import Attest, Certified, ClockInfo, Quoted, parse_attest
from umec_attest.tpm.kdf import kdfa, kdfe
from umec_attest.tpm.names import Hierarchy, qualified_name
from umec_attest.tpm.pcr import PCR_COUNT, PcrBank, PcrSelection, parse_pcr_selection
from umec_attest.tpm.public import (
    Attributes,
    EccParameters,
    Public,
    RsaParameters,
    SchemeChoice,
    Symmetric,
    parse_public,
    parse_tpm2b_public,
)
from umec_attest.tpm.signature import EcdsaSignature, RsaSignature, Scheme, parse_signature

PARSERS = {
    "attest": parse_attest,
    "signature": parse_signature,
    "public": parse_public,
    "tpm2b-public": parse_tpm2b_public,
    "selection": parse_pcr_selection,
}
U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
HASH = st.sampled_from(HashAlgorithm)
TSS_HASH = st.sampled_from([HashAlgorithm.SHA1, HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512])


def names():
    return st.one_of(st.just(b""), st.binary(min_size=34, max_size=34), st.binary(min_size=66, max_size=66))


def selections(hash_algorithms=HASH):
    pcrs = st.sets(st.integers(0, PCR_COUNT - 1)).map(lambda found: tuple(sorted(found)))
    return st.lists(st.builds(PcrBank, hash_algorithms, pcrs), max_size=4).map(lambda banks: PcrSelection(tuple(banks)))


def attests(hash_algorithms=HASH):
    quoted = st.builds(Quoted, selections(hash_algorithms), st.binary(max_size=64))
    certified = st.builds(Certified, names(), names())
    clock = st.builds(ClockInfo, U64, U32, U32, safe=st.booleans())
    return st.builds(Attest, names(), st.binary(max_size=50), clock, U64, st.one_of(quoted, certified))


def signatures(hash_algorithms=HASH):
    rsa = st.builds(
        RsaSignature, st.sampled_from([Scheme.RSASSA, Scheme.RSAPSS]), hash_algorithms, st.binary(max_size=512)
    )
    number = st.binary(max_size=66)
    return st.one_of(rsa, st.builds(EcdsaSignature, hash_algorithms, number, number))


def publics(hash_algorithms=HASH):
    symmetric = st.none() | st.builds(Symmetric, st.just(6), st.sampled_from([128, 192, 256]), st.just(0x43))
    rsa_scheme = st.none() | st.builds(SchemeChoice, st.sampled_from([0x14, 0x16, 0x17]), hash_algorithms)
    rsa_scheme |= st.just(SchemeChoice(0x15, None))
    ecc_scheme = st.none() | st.builds(SchemeChoice, st.sampled_from([0x18, 0x19]), hash_algorithms)
    ecc_scheme |= st.builds(SchemeChoice, st.just(0x1A), hash_algorithms, U16)
    kdf = st.none() | st.builds(SchemeChoice, st.sampled_from([0x20, 0x22]), hash_algorithms)
    rsa = st.builds(
        RsaParameters, symmetric, rsa_scheme, st.sampled_from([1024, 2048, 4096]), U32, st.binary(max_size=512)
    )
    point = st.binary(max_size=66)
    ecc = st.builds(EccParameters, symmetric, ecc_scheme, st.sampled_from([3, 4, 5]), kdf, point, point)
    attributes = st.sets(st.sampled_from(list(Attributes))).map(lambda found: Attributes(sum(found)))
    policy = st.sampled_from([b"", bytes(32), bytes(48), bytes(64)])
    return st.builds(Public, hash_algorithms, attributes, policy, st.one_of(rsa, ecc))


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=300))
def test_any_bytes_give_a_value_or_the_one_error(name, data):
    try:
        value = PARSERS[name](data)
    except TpmInvalid:
        return
    assert name == "tpm2b-public" or value.to_bytes() == data


@given(value=attests(), cut=st.data())
def test_attest_round_trip_and_truncation(value, cut):
    data = value.to_bytes()
    assert parse_attest(data) == value
    for wrong in (data[: cut.draw(st.integers(0, len(data) - 1))], data + b"\0"):
        with pytest.raises(TpmInvalid):
            parse_attest(wrong)


@given(value=signatures())
def test_signature_round_trip(value):
    assert parse_signature(value.to_bytes()) == value
    with pytest.raises(TpmInvalid):
        parse_signature(value.to_bytes()[:-1] if value.to_bytes()[-1:] else b"")


@given(value=publics())
def test_public_round_trip(value):
    data = value.to_bytes()
    assert parse_public(data) == value
    assert parse_tpm2b_public(len(data).to_bytes(2, "big") + data) == value
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(TpmInvalid):
            parse_public(wrong)


@given(value=selections())
def test_selection_round_trip(value):
    assert parse_pcr_selection(value.to_bytes()) == value


# --- the same by tpm2-tss, in both directions -----------------------------------------------------------------------


@given(value=attests(TSS_HASH))
def test_tss_reads_and_writes_the_same_attest(value):
    theirs, used = TPMS_ATTEST.unmarshal(value.to_bytes())
    assert used == len(value.to_bytes())
    assert bytes(theirs.marshal()) == value.to_bytes()
    assert bytes(theirs.extraData) == value.extra_data
    assert bytes(theirs.qualifiedSigner) == value.qualified_signer
    assert theirs.clockInfo.resetCount == value.clock_info.reset_count
    assert theirs.firmwareVersion == value.firmware_version


@given(value=signatures(TSS_HASH))
def test_tss_reads_and_writes_the_same_signature(value):
    theirs, used = TPMT_SIGNATURE.unmarshal(value.to_bytes())
    assert used == len(value.to_bytes())
    assert bytes(theirs.marshal()) == value.to_bytes()


@given(value=publics(TSS_HASH))
def test_tss_reads_and_writes_the_same_public(value):
    theirs, used = TPMT_PUBLIC.unmarshal(value.to_bytes())
    assert used == len(value.to_bytes())
    assert bytes(theirs.marshal()) == value.to_bytes()
    if value.name_algorithm in (HashAlgorithm.SHA256, HashAlgorithm.SHA384):
        assert bytes(TPM2B_PUBLIC(publicArea=theirs).get_name()) == value.name()


@given(value=selections(TSS_HASH))
def test_tss_reads_and_writes_the_same_selection(value):
    theirs, _ = TPML_PCR_SELECTION.unmarshal(value.to_bytes())
    assert bytes(theirs.marshal()) == value.to_bytes()


# --- one fault each -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "banks", [{}, {"sha256": []}, {"sha257": [0]}, {"sha256": [24]}, {"sha256": [1, 0]}, {"sha256": [1, 1]}]
)
def test_impossible_selections(banks, refused):
    with refused("tpm-invalid"):
        PcrSelection.from_mapping(banks)
    with refused("tpm-invalid"):
        PcrBank(HashAlgorithm.SHA256, (-1, 0))
    assert PcrSelection.from_mapping({"sha256": [0, 1]}).to_mapping() == {"sha256": [0, 1]}


def test_too_many_banks(refused):
    with refused("tpm-invalid"):
        parse_pcr_selection((17).to_bytes(4, "big") + PcrBank(HashAlgorithm.SHA256, (0,)).to_bytes() * 17)


def test_reserved_attribute_bits(kit, refused):
    data = bytearray(kit.public_of(kit.ec_key()).to_bytes())
    data[4] |= 0x80
    with refused("tpm-invalid"):
        parse_public(bytes(data))


def test_symmetric_objects_are_no_asymmetric_keys(kit, refused):
    data = kit.public_of(kit.ec_key()).to_bytes()
    for kind in (0x0008, 0x0025):
        with refused("tpm-invalid"):
            parse_public(kind.to_bytes(2, "big") + data[2:])


def test_other_kinds_of_objects_without_a_body(kit, refused):
    data = kit.public_of(kit.ec_key()).to_bytes()
    with refused("tpm-invalid"):
        parse_public(b"\x00\x08" + data[2:10])


def test_unknown_symmetric_algorithms_and_schemes_of_other_keys(kit, refused):
    for wrong in (
        kit.public_of(kit.rsa_key(), symmetric=Symmetric(0x99, 128, 0x43)),
        kit.public_of(kit.rsa_key(), scheme=SchemeChoice(Scheme.ECDSA, HashAlgorithm.SHA256)),
        kit.public_of(kit.ec_key(), scheme=SchemeChoice(Scheme.RSASSA, HashAlgorithm.SHA256)),
    ):
        with refused("tpm-invalid"):
            parse_public(wrong.to_bytes())
    good = kit.public_of(kit.rsa_key(), scheme=SchemeChoice(Scheme.RSASSA, HashAlgorithm.SHA256))
    assert parse_public(good.to_bytes()) == good


def test_another_size_of_a_selection(refused):
    head = (1).to_bytes(4, "big") + HashAlgorithm.SHA256.to_bytes(2, "big")
    for size in (0, 2, 4):
        with refused("tpm-invalid"):
            parse_pcr_selection(head + bytes([size, *b"\1\0\0\0"[:size]]))
    assert parse_pcr_selection(head + b"\3\1\0\0").to_mapping() == {"sha256": [0]}


def test_fields_beyond_their_limits(tpm, refused):
    with refused("tpm-invalid"):
        parse_attest(tpm.attest(extra_data=bytes(67)).to_bytes())
    assert parse_attest(tpm.attest(extra_data=bytes(66)).to_bytes())


def test_a_flag_that_is_neither_yes_nor_no(tpm, refused):
    data = tpm.attest(qualified_signer=b"", extra_data=b"").to_bytes()
    safe = 4 + 2 + 2 + 2 + 8 + 4 + 4
    assert data[safe] == 1
    with refused("tpm-invalid"):
        parse_attest(data[:safe] + b"\2" + data[safe + 1 :])


def test_a_type_without_a_body_or_with_that_of_another(tpm, kit, refused):
    certified = tpm.certify(tpm.ak, kit.NONCE)
    attest = Attest(b"", b"", tpm.clock_info, 7, Certified(b"", b"")).to_bytes()
    for wrong in (certified[:4] + b"\x80\x16" + certified[6:], attest[:4] + b"\x80\x16" + attest[6:-4]):
        with refused("tpm-invalid"):
            parse_attest(wrong)
    assert parse_attest(certified)


def test_a_point_off_its_curve(kit, refused):
    good = kit.public_of(kit.ec_key())
    parameters = EccParameters(None, None, 3, None, good.parameters.x, bytes(32))
    with refused("key-weak"):
        Public(good.name_algorithm, good.attributes, b"", parameters).key()


def test_an_unknown_curve(kit, refused):
    good = kit.public_of(kit.ec_key())
    parameters = EccParameters(None, None, 0x10, None, good.parameters.x, good.parameters.y)
    with refused("key-weak"):
        Public(good.name_algorithm, good.attributes, b"", parameters).key()


def test_a_modulus_of_another_size(kit, refused):
    good = kit.public_of(kit.rsa_key())
    modulus = good.parameters.modulus
    shorter = (int.from_bytes(modulus, "big") % 2**2047 | 2**2046).to_bytes(256, "big")
    for bits, wrong in ((3072, modulus), (2048, b"\0" + modulus), (2048, shorter)):
        parameters = RsaParameters(None, None, bits, 0, wrong)
        with refused("key-weak"):
            Public(good.name_algorithm, good.attributes, b"", parameters).key()
    assert good.key()


def test_qualified_names_differ_by_hierarchy(kit):
    public = kit.public_of(kit.ec_key())
    assert len({qualified_name(public, hierarchy) for hierarchy in Hierarchy}) == len(Hierarchy)


def test_kdf_lengths_and_contexts():
    sha256 = HashAlgorithm.SHA256
    long = kdfa(sha256, b"k", b"L", (b"u", b"v"), 512)
    assert len(long) == 64
    assert kdfa(sha256, b"k", b"L", (b"u", b"w"), 512) != long
    assert len(kdfe(sha256, b"z", b"U", (b"u", b"v"), 384)) == 48


# --- PCR values in JSON ---------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)
)


@given(value=JSON)
def test_pcr_values_from_any_json(value):
    try:
        parsed = parse_pcr_values(value)
    except PcrValuesInvalid:
        return
    assert parsed


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"sha256": []},
        {"sha9": {}},
        {"sha256": {"24": "00" * 32}},
        {"sha256": {"01": "00" * 32}},
        {"sha256": {"0": "00" * 31}},
        {"sha256": {"0": "zz" * 32}},
        {"sha256": {"0": " " * 64}},
        {"sha256": {"0": "00 " * 32}},
        {"sha256": {"zero": "00" * 32}},
        {"sha256": {"0": 5}},
    ],
)
def test_malformed_pcr_values(value, refused):
    with refused("pcr-values-invalid"):
        parse_pcr_values(value)
    good = {"sha256": {"0": "00" * 32}}
    assert parse_pcr_values(good) == {HashAlgorithm.SHA256: {0: bytes(32)}}
