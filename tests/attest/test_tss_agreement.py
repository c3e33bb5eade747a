"""TPM structures by tpm2-tss: what it makes we read, what it refuses we refuse, and both derive the same keys."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tpm2_pytss import TSS2_Exception
from tpm2_pytss.internal.crypto import _kdfa as tss_kdfa
from tpm2_pytss.internal.crypto import kdfe as tss_kdfe
from tpm2_pytss.types import (
    TPM2B_ATTEST,
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_NAME,
    TPM2B_PUBLIC,
    TPM2B_PUBLIC_KEY_RSA,
    TPML_PCR_SELECTION,
    TPMS_ATTEST,
    TPMS_CERTIFY_INFO,
    TPMS_CLOCK_INFO,
    TPMS_CREATION_INFO,
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_NV_CERTIFY_INFO,
    TPMS_PCR_SELECTION,
    TPMS_QUOTE_INFO,
    TPMS_RSA_PARMS,
    TPMS_SESSION_AUDIT_INFO,
    TPMS_SIGNATURE_ECC,
    TPMS_SIGNATURE_RSA,
    TPMS_TIME_ATTEST_INFO,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SIGNATURE,
    TPMT_SYM_DEF_OBJECT,
    TPMU_ATTEST,
    TPMU_PUBLIC_ID,
    TPMU_PUBLIC_PARMS,
    TPMU_SIGNATURE,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

from umec_attest.errors import TpmInvalid
from umec_attest.tpm.algorithms import SIGNING_HASHES, HashAlgorithm
from umec_attest.tpm.attest import Certified, Quoted, parse_attest
from umec_attest.tpm.kdf import kdfa, kdfe
from umec_attest.tpm.pcr import parse_pcr_selection
from umec_attest.tpm.public import parse_public, parse_tpm2b_public
from umec_attest.tpm.signature import parse_signature

MAGIC, CERTIFY, QUOTE = 0xFF544347, 0x8017, 0x8018
NULL, AES, CFB = 0x10, 0x06, 0x43
TIMES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
HASH = st.sampled_from([0x04, 0x0B, 0x0C, 0x0D])


def parts(most):
    return st.binary(max_size=most)


# --- what it makes, we read -----------------------------------------------------------------------------------------

SELECTION = st.lists(st.tuples(HASH, st.binary(min_size=3, max_size=3)), max_size=4).map(
    lambda banks: TPML_PCR_SELECTION(
        pcrSelections=[TPMS_PCR_SELECTION(hash=kind, sizeofSelect=3, pcrSelect=bitmap) for kind, bitmap in banks]
    )
)


def attested(kind, **member):
    return st.fixed_dictionaries(member).map(lambda made: (kind, TPMU_ATTEST(**made)))


QUOTED = attested(
    QUOTE,
    quote=st.builds(
        lambda selection, digest: TPMS_QUOTE_INFO(pcrSelect=selection, pcrDigest=TPM2B_DIGEST(digest)),
        SELECTION,
        parts(64),
    ),
)
CERTIFIED = attested(
    CERTIFY,
    certify=st.builds(
        lambda name, qualified: TPMS_CERTIFY_INFO(name=TPM2B_NAME(name), qualifiedName=TPM2B_NAME(qualified)),
        parts(66),
        parts(66),
    ),
)
OTHERS = {
    "NV": (0x8014, {"nv": TPMS_NV_CERTIFY_INFO()}),
    "SESSION_AUDIT": (0x8016, {"sessionAudit": TPMS_SESSION_AUDIT_INFO()}),
    "TIME": (0x8019, {"time": TPMS_TIME_ATTEST_INFO()}),
    "CREATION": (0x801A, {"creation": TPMS_CREATION_INFO()}),
}


def attest_of(kind, union, signer=b"", extra=b"", clock=0, resets=0, restarts=0, safe=1, firmware=0):
    return TPMS_ATTEST(
        magic=MAGIC,
        type=kind,
        qualifiedSigner=TPM2B_NAME(signer),
        extraData=TPM2B_DATA(extra),
        clockInfo=TPMS_CLOCK_INFO(clock=clock, resetCount=resets, restartCount=restarts, safe=safe),
        firmwareVersion=firmware,
        attested=union,
    )


ATTESTS = st.builds(
    lambda pair, *rest: attest_of(*pair, *rest),
    QUOTED | CERTIFIED,
    parts(66),
    parts(64),
    U64,
    U32,
    U32,
    st.integers(0, 1),
    U64,
)


@TIMES
@given(theirs=ATTESTS)
def test_we_read_their_attest(theirs):
    data = bytes(theirs.marshal())
    ours = parse_attest(data)
    assert ours.to_bytes() == data
    assert (ours.extra_data, ours.firmware_version) == (bytes(theirs.extraData), theirs.firmwareVersion)
    assert (ours.clock_info.clock, ours.clock_info.restart_count, ours.clock_info.safe) == (
        theirs.clockInfo.clock,
        theirs.clockInfo.restartCount,
        bool(theirs.clockInfo.safe),
    )
    if isinstance(ours.attested, Quoted):
        assert ours.attested.pcr_digest == bytes(theirs.attested.quote.pcrDigest)
    else:
        assert isinstance(ours.attested, Certified)
        assert ours.attested.qualified_name == bytes(theirs.attested.certify.qualifiedName)


@pytest.mark.parametrize("name", OTHERS)
def test_we_refuse_the_other_attestations_by_name(name):
    kind, member = OTHERS[name]
    with pytest.raises(TpmInvalid, match=f"neither a quote nor a certification: {name},"):
        parse_attest(bytes(attest_of(kind, TPMU_ATTEST(**member)).marshal()))


SIGNATURES = st.one_of(
    st.builds(
        lambda scheme, kind, value: TPMT_SIGNATURE(
            sigAlg=scheme,
            signature=TPMU_SIGNATURE(rsassa=TPMS_SIGNATURE_RSA(hash=kind, sig=TPM2B_PUBLIC_KEY_RSA(value))),
        ),
        st.sampled_from([0x14, 0x16]), HASH, parts(512),
    ),
    st.builds(
        lambda kind, r, s: TPMT_SIGNATURE(
            sigAlg=0x18,
            signature=TPMU_SIGNATURE(
                ecdsa=TPMS_SIGNATURE_ECC(
                    hash=kind, signatureR=TPM2B_ECC_PARAMETER(r), signatureS=TPM2B_ECC_PARAMETER(s)
                )
            ),
        ),
        HASH, parts(66), parts(66),
    ),
)  # fmt: skip


@TIMES
@given(theirs=SIGNATURES)
def test_we_read_their_signatures(theirs):
    data = bytes(theirs.marshal())
    assert parse_signature(data).to_bytes() == data


SYMMETRIC = st.one_of(
    st.just(TPMT_SYM_DEF_OBJECT(algorithm=NULL)),
    st.sampled_from([128, 192, 256]).map(
        lambda bits: TPMT_SYM_DEF_OBJECT(
            algorithm=AES, keyBits=TPMU_SYM_KEY_BITS(aes=bits), mode=TPMU_SYM_MODE(aes=CFB)
        )
    ),
)
ATTRIBUTES = st.sets(st.sampled_from([1, 2, 4, 5, 6, 7, 8, 10, 11, 16, 17, 18, 19])).map(
    lambda bits: sum(1 << bit for bit in bits)
)
RSA_PARTS = st.builds(
    lambda symmetric, bits, exponent, modulus: (
        0x01,
        TPMU_PUBLIC_PARMS(
            rsaDetail=TPMS_RSA_PARMS(
                symmetric=symmetric, scheme=TPMT_RSA_SCHEME(scheme=NULL), keyBits=bits, exponent=exponent
            )
        ),
        TPMU_PUBLIC_ID(rsa=TPM2B_PUBLIC_KEY_RSA(modulus)),
    ),
    SYMMETRIC, st.sampled_from([2048, 3072, 4096]), U32, parts(512),
)  # fmt: skip
ECC_PARTS = st.builds(
    lambda symmetric, curve, x, y: (
        0x23,
        TPMU_PUBLIC_PARMS(
            eccDetail=TPMS_ECC_PARMS(
                symmetric=symmetric,
                scheme=TPMT_ECC_SCHEME(scheme=NULL),
                curveID=curve,
                kdf=TPMT_KDF_SCHEME(scheme=NULL),
            )
        ),
        TPMU_PUBLIC_ID(ecc=TPMS_ECC_POINT(x=TPM2B_ECC_PARAMETER(x), y=TPM2B_ECC_PARAMETER(y))),
    ),
    SYMMETRIC, st.sampled_from([3, 4, 5]), parts(66), parts(66),
)  # fmt: skip
PUBLICS = st.builds(
    lambda made, kind, attributes, policy: TPMT_PUBLIC(
        type=made[0],
        nameAlg=kind,
        objectAttributes=attributes,
        authPolicy=TPM2B_DIGEST(policy),
        parameters=made[1],
        unique=made[2],
    ),
    RSA_PARTS | ECC_PARTS, HASH, ATTRIBUTES, parts(64),
)  # fmt: skip


@TIMES
@given(theirs=PUBLICS)
def test_we_read_their_public_areas_and_give_them_the_same_name(theirs):
    data = bytes(theirs.marshal())
    ours = parse_public(data)
    assert ours.to_bytes() == data
    sized = TPM2B_PUBLIC(publicArea=theirs)
    assert parse_tpm2b_public(bytes(sized.marshal())) == ours
    if ours.name_algorithm in (HashAlgorithm.SHA256, HashAlgorithm.SHA384):
        assert ours.name() == bytes(sized.get_name())


@TIMES
@given(theirs=SELECTION)
def test_we_read_their_selections(theirs):
    data = bytes(theirs.marshal())
    assert parse_pcr_selection(data).to_bytes() == data


# --- what it refuses, we refuse -------------------------------------------------------------------------------------

STRUCTURES = {
    "attest": (TPMS_ATTEST, parse_attest, ATTESTS),
    "signature": (TPMT_SIGNATURE, parse_signature, SIGNATURES),
    "public": (TPMT_PUBLIC, parse_public, PUBLICS),
    "selection": (TPML_PCR_SELECTION, parse_pcr_selection, SELECTION),
    "tpm2b-public": (TPM2B_PUBLIC, parse_tpm2b_public, PUBLICS.map(lambda public: TPM2B_PUBLIC(publicArea=public))),
}


def accepted_by_tss(kind, data):
    try:
        made, used = kind.unmarshal(data)
    except TSS2_Exception:
        return False
    return used == len(data) and bytes(made.marshal()) == data


@pytest.mark.parametrize("name", STRUCTURES)
@TIMES
@given(data=st.data())
def test_what_they_refuse_we_refuse(name, data):
    kind, parse, made = STRUCTURES[name]
    changed = bytearray(data.draw(made).marshal())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        how = data.draw(st.sampled_from(["change", "remove", "insert"]))
        if how == "insert":
            changed.insert(at, data.draw(st.integers(0, 255)))
        elif at < len(changed) and how == "remove":
            del changed[at]
        elif at < len(changed):
            changed[at] = data.draw(st.integers(0, 255))
    shown = bytes(changed)
    try:
        parse(shown)
    except TpmInvalid:
        return
    assert accepted_by_tss(kind, shown), shown.hex()


@TIMES
@given(theirs=ATTESTS)
def test_an_attest_in_its_envelope_is_the_same(theirs):
    """What TPM2_Quote returns is a TPM2B_ATTEST; its content is what we are sent."""
    data = bytes(theirs.marshal())
    assert parse_attest(bytes(TPM2B_ATTEST(data).attestationData)).to_bytes() == data


# --- key derivation -------------------------------------------------------------------------------------------------


@TIMES
@given(
    algorithm=st.sampled_from(list(SIGNING_HASHES)),
    key=st.binary(min_size=1, max_size=64),
    label=st.sampled_from([b"STORAGE", b"INTEGRITY", b"IDENTITY", b"x"]),
    contexts=st.tuples(parts(66), parts(66)),
    bits=st.integers(1, 96).map(lambda octets: octets * 8),
)
def test_both_derive_the_same_keys(algorithm, key, label, contexts, bits):
    assert kdfa(algorithm, key, label, contexts, bits) == tss_kdfa(int(algorithm), key, label, *contexts, bits)
    ended = label + b"\0"  # which theirs leaves to the caller
    assert kdfe(algorithm, key, label, contexts, bits) == tss_kdfe(int(algorithm), key, ended, *contexts, bits)
