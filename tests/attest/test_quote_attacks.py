"""Every attack on a quote that we know, one fault each; the quote without the fault is good."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import Quoted
from umec_attest.tpm.names import signer_name
from umec_attest.tpm.pcr import PcrBank, PcrSelection
from umec_attest.tpm.signature import EcdsaSignature, Scheme, parse_signature

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
KINDS = {
    "rsassa": (("rsa", 2048), Scheme.RSASSA, SHA256),
    "rsassa-sha384": (("rsa", 2048), Scheme.RSASSA, SHA384),
    "rsapss": (("rsa", 2048), Scheme.RSAPSS, SHA256),
    "rsapss-sha384": (("rsa", 2048), Scheme.RSAPSS, SHA384),
    "ecdsa-p256": (("ec", "secp256r1"), Scheme.ECDSA, SHA256),
    "ecdsa-p256-sha384": (("ec", "secp256r1"), Scheme.ECDSA, SHA384),
    "ecdsa-p384": (("ec", "secp384r1"), Scheme.ECDSA, SHA384),
    "ecdsa-p384-sha256": (("ec", "secp384r1"), Scheme.ECDSA, SHA256),
}


def machine(kit, name, **changes):
    (kind, size), scheme, algorithm = KINDS[name]
    key = kit.rsa_key(size) if kind == "rsa" else kit.ec_key(size)
    return kit.Adversary(key=key, scheme=scheme, algorithm=algorithm, **changes)


@pytest.mark.parametrize("name", KINDS)
def test_good_quotes_are_accepted(kit, name):
    tpm = machine(kit, name)
    quote = tpm.verify()
    assert quote.pcrs == tpm.values()
    assert (quote.clock_info.reset_count, quote.firmware_version) == (5, 7)


# --- structure ------------------------------------------------------------------------------------------------------


def test_another_magic(tpm, refused):
    attest = bytearray(tpm.attest().to_bytes())
    attest[0] ^= 1
    with refused("tpm-invalid"):
        tpm.verify(bytes(attest))


@pytest.mark.parametrize("kind", [0x8014, 0x8015, 0x8016, 0x8019, 0x801A, 0x801C, 0x0000])
def test_another_type_of_attestation(tpm, refused, kind):
    attest = bytearray(tpm.attest().to_bytes())
    attest[4:6] = kind.to_bytes(2, "big")
    with refused("tpm-invalid"):
        tpm.verify(bytes(attest))


def test_a_certification_is_no_quote(tpm, refused):
    with refused("quote-type-mismatch"):
        tpm.verify(tpm.certify(tpm.ak, tpm.nonce))


def test_trailing_bytes_and_every_truncation(tpm, refused):
    attest = tpm.attest().to_bytes()
    for wrong in [attest + b"\0", *(attest[:size] for size in range(len(attest)))]:
        with refused("tpm-invalid"):
            tpm.verify(wrong)


def test_length_fields_off_by_two(tpm, refused):
    """Each of them, up and down: Name, extraData, count of banks, sizeofSelect, digest; r and s of a signature."""
    attest, signature = tpm.attest().to_bytes(), tpm.sign(tpm.attest().to_bytes())
    extra = 6 + 2 + 34
    banks = extra + 2 + 32 + 17 + 8
    of_attest = {6: 34, extra: 32, banks + 2: 1, banks + 5: 0x0B03, banks + 4 + 6: 32}
    for at, expected in of_attest.items():
        assert int.from_bytes(attest[at : at + 2], "big") == expected
    for structure, offsets in ((attest, of_attest), (signature, (4, 4 + 2 + 32))):
        for at in offsets:
            for change in (-2, 2, -1, 1):
                value = (int.from_bytes(structure[at : at + 2], "big") + change) % 2**16
                wrong = structure[:at] + value.to_bytes(2, "big") + structure[at + 2 :]
                with refused("tpm-invalid"):
                    tpm.verify(wrong, signature) if structure is attest else tpm.verify(attest, wrong)
    tpm.verify(attest, signature)


def test_another_qualified_signer(tpm, kit, refused):
    for parent in (kit.Hierarchy.OWNER, kit.Hierarchy.ENDORSEMENT, kit.public_of(kit.ec_key(name="other"))):
        with refused("quote-signer-mismatch"):
            tpm.verify(ak_parent=parent)
    with refused("quote-signer-mismatch"):
        tpm.verify(tpm.attest(qualified_signer=b"").to_bytes())


@pytest.mark.parametrize("nonce", [b"", bytes(range(31)), bytes(range(33)), bytes(32)])
def test_another_nonce(tpm, refused, nonce):
    with refused("quote-nonce-mismatch"):
        tpm.verify(tpm.attest(extra_data=nonce).to_bytes())


def test_a_challenge_without_a_nonce_is_none(tpm, refused):
    with refused("quote-nonce-mismatch"):
        tpm.verify(tpm.attest(extra_data=b"").to_bytes(), nonce=b"")


# --- signature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_breaks_every_signature(kit, refused, name):
    tpm = machine(kit, name)
    signature = tpm.sign(tpm.attest().to_bytes())
    clock = replace(tpm.clock_info, clock=tpm.clock_info.clock + 1)
    with refused("signature-invalid"):
        tpm.verify(tpm.attest(clock_info=clock).to_bytes(), signature)


def test_another_key_of_the_same_kind(tpm, kit, refused):
    stranger = kit.Adversary(key=kit.ec_key(name="stranger"))
    with refused("signature-invalid"):
        tpm.verify(signature=stranger.sign(tpm.attest().to_bytes()))


def test_scheme_of_the_other_key_type(kit, refused):
    for mine, other in (("rsassa", "ecdsa-p256"), ("ecdsa-p256", "rsassa")):
        tpm = machine(kit, mine, bound=False)
        with refused("signature-scheme-refused"):
            tpm.verify(signature=machine(kit, other).sign(tpm.attest().to_bytes()))


def test_scheme_that_the_key_is_not_bound_to(kit, refused):
    tpm = machine(kit, "rsassa")
    with refused("signature-scheme-refused"):
        tpm.verify(signature=machine(kit, "rsapss").sign(tpm.attest().to_bytes()))
    free = machine(kit, "rsassa", bound=False)
    free.verify(signature=machine(kit, "rsapss").sign(free.attest().to_bytes()))


def test_sha1_never(kit, refused):
    tpm = kit.Adversary(key=kit.rsa_key(), scheme=Scheme.RSASSA, algorithm=HashAlgorithm.SHA1, bound=False)
    with refused("signature-scheme-refused"):
        tpm.verify()


def test_another_hash_than_the_key_is_bound_to(kit, refused):
    tpm = kit.Adversary(algorithm=HashAlgorithm.SHA384)
    bound = kit.Adversary().ak
    attest = tpm.attest(qualified_signer=signer_name(bound, tpm.ek)).to_bytes()
    with refused("signature-scheme-refused"):
        tpm.verify(attest, ak=bound)
    tpm.verify()


@pytest.mark.parametrize("salt", [0, 20, 48, 222])
def test_pss_with_another_salt_length(kit, refused, salt):
    tpm = machine(kit, "rsapss")
    attest = tpm.attest().to_bytes()
    with refused("signature-invalid"):
        tpm.verify(attest, tpm.sign(attest, salt=salt))


def test_r_or_s_out_of_range(tpm, refused):
    attest = tpm.attest().to_bytes()
    good = parse_signature(tpm.sign(attest))
    order = ec.SECP256R1().group_order
    for number in (0, order, order + 1, 2**256 - 1):
        for wrong in ({"r": number.to_bytes(32, "big")}, {"s": number.to_bytes(32, "big")}):
            with refused("signature-invalid"):
                tpm.verify(attest, replace(good, **wrong).to_bytes())
    assert isinstance(good, EcdsaSignature)
    tpm.verify(attest, good.to_bytes())


@pytest.mark.parametrize("scheme", [0x0005, 0x0010, 0x001A, 0x001B, 0x001C])
def test_hmac_null_and_foreign_schemes(tpm, refused, scheme):
    signature = tpm.sign(tpm.attest().to_bytes())
    with refused("tpm-invalid"):
        tpm.verify(signature=scheme.to_bytes(2, "big") + signature[2:])


def test_trailing_bytes_of_a_signature(tpm, refused):
    with refused("tpm-invalid"):
        tpm.verify(signature=tpm.sign(tpm.attest().to_bytes()) + b"\0")


def test_weak_keys(kit, refused):
    for key in (kit.rsa_key(1024), kit.rsa_key(2048, 3)):
        with refused("key-weak"):
            kit.Adversary(key=key, scheme=Scheme.RSASSA).verify()
    with refused("key-weak"):
        kit.Adversary(key=kit.ec_key("secp521r1")).verify()


# --- PCR selection and digest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selection",
    [
        {"sha256": (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12)},
        {"sha256": (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14)},
        {"sha256": (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 16)},
        {"sha384": (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)},
        {"sm3_256": (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)},
        {"sha256": (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14), "sha384": (0,)},
    ],
    ids=["missing", "extra", "renamed", "other-bank", "same-size-bank", "second-bank"],
)
def test_another_selection(kit, refused, selection):
    tpm = kit.Adversary(selection=PcrSelection.from_mapping(selection))
    good = kit.Adversary().attest()
    renamed = replace(good, attested=Quoted(tpm.selection, good.attested.pcr_digest))
    with refused("pcr-selection-mismatch"):
        kit.Adversary().verify(renamed.to_bytes())


def test_other_banks_that_were_requested(kit):
    for banks in ({"sha384": kit.PCRS}, {"sha512": kit.PCRS}, {"sha256": kit.PCRS, "sha384": (0, 7)}):
        selection = PcrSelection.from_mapping(banks)
        tpm = kit.Adversary(selection=selection)
        assert tpm.verify(selection=selection).pcrs == tpm.values()


def test_two_selections_of_one_bank(tpm, refused):
    bank = tpm.selection.banks[0]
    twice = PcrSelection((bank, bank))
    attest = tpm.attest(attested=Quoted(twice, tpm.attest().attested.pcr_digest))
    for requested in (tpm.selection, twice):
        with refused("pcr-selection-mismatch"):
            tpm.verify(attest.to_bytes(), selection=requested)


def test_nothing_selected(tpm, refused):
    for empty in (PcrSelection(()), PcrSelection((PcrBank(SHA256, ()),))):
        attest = tpm.attest(attested=Quoted(empty, SHA256.digest(b"")))
        for requested in (tpm.selection, empty):
            with refused("pcr-selection-mismatch"):
                tpm.verify(
                    attest.to_bytes(), selection=requested, pcrs={bank.algorithm: {} for bank in requested.banks}
                )


@pytest.mark.parametrize("size", [0, 2, 4, 255])
def test_size_of_select(tpm, refused, size):
    attest = tpm.attest().to_bytes()
    at = len(attest) - 34 - 4
    assert attest[at] == 3
    with refused("tpm-invalid"):
        tpm.verify(attest[:at] + bytes([size]) + attest[at + 1 :])


def test_sha1_bank_is_not_believed_even_if_requested(kit, refused):
    selection = PcrSelection.from_mapping({"sha1": kit.PCRS})
    tpm = kit.Adversary(selection=selection)
    with refused("pcr-selection-mismatch"):
        tpm.verify(selection=selection)


def test_values_under_another_label(tpm, refused):
    values = tpm.values()[SHA256]
    for change in ({10: values[9]}, {16: values[9]}, {23: values[9]}):
        shown = {pcr: value for pcr, value in values.items() if pcr != 9} | change
        with refused("pcr-values-invalid"):
            tpm.verify(pcrs={SHA256: shown})


def test_swapped_missing_extra_and_changed_values(tpm, refused):
    values = tpm.values()[SHA256]
    for wrong, code in (
        (values | {0: values[1], 1: values[0]}, "pcr-digest-mismatch"),
        (values | {4: bytes(32)}, "pcr-digest-mismatch"),
        (values | {8: bytes(32)}, "pcr-values-invalid"),
        ({pcr: value for pcr, value in values.items() if pcr != 14}, "pcr-values-invalid"),
        (values | {4: bytes(31)}, "pcr-values-invalid"),
    ):
        with refused(code):
            tpm.verify(pcrs={SHA256: wrong})


def test_values_of_another_bank(tpm, refused):
    with refused("pcr-values-invalid"):
        tpm.verify(pcrs={HashAlgorithm.SM3_256: tpm.values()[SHA256]})
    with refused("pcr-values-invalid"):
        tpm.verify(pcrs=tpm.values() | {HashAlgorithm.SHA384: {}})


def test_the_order_of_values_is_that_of_the_selection(tpm):
    values = tpm.values()[SHA256]
    assert tpm.verify(pcrs={SHA256: dict(reversed(values.items()))}).pcrs == tpm.verify().pcrs
