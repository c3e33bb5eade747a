"""Certificates that are not DER: vendors' two mistakes are mended if asked, and nothing else is."""

import contextlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.certificates.certificate import CertificateMalformed, load_certificate
from umec_attest.certificates.der import DerInvalid, cut, elements, mend, one
from umec_attest.certificates.names import parse_name

SIGNER = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name(
    [
        x509.RelativeDistinguishedName(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "TW"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Nuvo Corp"),
                x509.NameAttribute(NameOID.COMMON_NAME, "Nuvo TPM Root CA 2110"),
            ]
        )
    ]
)


def wrap(tag, content):
    size = len(content)
    length = (
        bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes([tag]) + length + content


def sorted_set(name):
    return one(one(name, 0x30).content, 0x31)


@pytest.fixture(scope="module")
def good(kit):
    alternative = x509.SubjectAlternativeName([x509.DirectoryName(NAME)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(SIGNER.public_key())
        .serial_number(7)
        .not_valid_before(kit.NOW)
        .not_valid_after(kit.NOW + timedelta(days=1))
        .add_extension(alternative, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(SIGNER, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def disordered(good):
    """The same, each name with its attributes the other way round, and signed like that."""
    tbs = cut(good).tbs
    name = sorted_set(NAME.public_bytes())
    other = wrap(0x31, b"".join(part.encoded for part in reversed(list(elements(name.content)))))
    assert tbs.count(name.encoded) == 3
    changed = tbs.replace(name.encoded, other)
    signature = wrap(0x03, b"\0" + SIGNER.sign(changed, ec.ECDSA(hashes.SHA256())))
    return wrap(0x30, changed + cut(good).outer_algorithm + signature)


def test_a_good_certificate_needs_no_mending(good):
    assert mend(good) == good
    assert load_certificate(good, tolerate=True) == load_certificate(good, tolerate=False)


def test_attributes_out_of_order_are_sorted_if_asked(good, disordered):
    with pytest.raises(CertificateMalformed):
        load_certificate(disordered, tolerate=False)
    mended = load_certificate(disordered, tolerate=True)
    assert mended.der == disordered
    assert mended.pieces.tbs == cut(disordered).tbs
    assert mended.fields.subject == x509.load_der_x509_certificate(good).subject
    assert mended.subject == mended.issuer == load_certificate(good, tolerate=False).subject
    assert mended.alternatives == (mended.subject,)
    mended.verify_signed_by(mended)


def test_the_signature_is_over_the_bytes_as_they_came(disordered):
    """A certificate that is only good after mending was not signed by anybody."""
    broken = load_certificate(mend(disordered), tolerate=False)
    with pytest.raises(InvalidSignature):
        broken.verify_signed_by(broken)


@pytest.mark.parametrize("rest", [b"\xff", b"\xff" * 400, b"\0" * 3])
def test_padding_behind_a_certificate_is_dropped_if_asked(good, rest):
    with pytest.raises(CertificateMalformed):
        load_certificate(good + rest, tolerate=False)
    padded = load_certificate(good + rest, tolerate=True)
    assert (padded.der, padded.fields) == (good + rest, x509.load_der_x509_certificate(good))
    padded.verify_signed_by(padded)


@pytest.mark.parametrize("rest", [b"\xff\0", b"\0\xff", b"\x01", b"\xff\xff\x30"])
def test_something_else_behind_a_certificate_is_not(good, rest):
    with pytest.raises(CertificateMalformed):
        load_certificate(good + rest, tolerate=True)
    with pytest.raises(DerInvalid):
        mend(good + rest)


def test_the_algorithm_that_was_signed_is_the_one_that_was_used(good):
    """The signature itself is good: what names its algorithm inside of what was signed names another one."""
    for inner, accepted in ((b"\x02", True), (b"\x03", False)):  # ecdsa-with-SHA256, ecdsa-with-SHA384
        algorithm = cut(good).outer_algorithm
        tbs = cut(good).tbs.replace(algorithm, algorithm[:-1] + inner)
        signature = wrap(0x03, b"\0" + SIGNER.sign(tbs, ec.ECDSA(hashes.SHA256())))
        shown = load_certificate(wrap(0x30, tbs + algorithm + signature), tolerate=False)
        if accepted:
            shown.verify_signed_by(shown)
        else:
            with pytest.raises(InvalidSignature):
                shown.verify_signed_by(shown)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_certificate_or_malformed(data):
    for tolerate in (False, True):
        with pytest.raises(CertificateMalformed):
            load_certificate(data, tolerate=tolerate)
    for parse in (mend, cut, parse_name, lambda data: list(elements(data))):
        try:
            parse(data)
        except DerInvalid:
            continue


@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4), data=st.data())
def test_a_changed_certificate_is_malformed_or_not_signed(good, disordered, changes, data):
    """Neither the reader nor the mender crashes, and mending twice changes nothing more."""
    original = data.draw(st.sampled_from([good, disordered]))
    changed = bytearray(original)
    for at, value in changes:
        changed[at % len(changed)] = value
    shown = bytes(changed)
    with contextlib.suppress(DerInvalid):
        assert mend(mend(shown)) == mend(shown)
    try:
        read = load_certificate(shown, tolerate=True)
    except CertificateMalformed:
        return
    if cut(shown).tbs != cut(original).tbs:
        signer = load_certificate(good, tolerate=False)
        with pytest.raises(InvalidSignature):
            read.verify_signed_by(signer)


# --- the reader -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x30",
        b"\x30\x01",
        b"\x30\x81",
        b"\x30\x80\0\0",
        b"\x30\x81\x7f" + bytes(127),
        b"\x30\x82\x00\xff" + bytes(255),
        b"\x30\x84\x00\x00\x00\x01\x00",
        b"\x1f\x01\x00",
        b"\x3f\x01\x00",
        b"\x30\x00\x05",
    ],
    ids=[
        "no-length",
        "truncated",
        "truncated-length",
        "indefinite",
        "longer-than-needed",
        "leading-zero",
        "too-many",
        "high-tag",
        "high-tag-constructed",
        "second-truncated",
    ],
)
def test_elements_that_are_not_der(data):
    with pytest.raises(DerInvalid):
        list(elements(data))


def test_elements_one_behind_the_other():
    data = b"\x05\x00" + wrap(0x04, bytes(128)) + wrap(0x04, bytes(300))
    found = list(elements(data))
    assert [(each.tag, len(each.content)) for each in found] == [(5, 0), (4, 128), (4, 300)]
    assert b"".join(each.encoded for each in found) == data
    assert one(b"\x05\x00", 5).content == b""
    for wrong in (b"", data, b"\x04\x00"):
        with pytest.raises(DerInvalid):
            one(wrong, 5)


def test_elements_nested_beyond_all_need():
    nested = b"\x05\x00"
    for depth in range(40):
        if depth == 16:
            assert mend(nested) == nested
        nested = wrap(0x30, nested)
    with pytest.raises(DerInvalid):
        mend(nested)


def test_what_is_cut_is_a_certificate(good):
    pieces = cut(good)
    three = (pieces.tbs, pieces.outer_algorithm, wrap(3, b"\0" + pieces.signature))
    assert cut(wrap(0x30, b"".join(three))) == pieces
    body = list(elements(one(pieces.tbs, 0x30).content))
    for wrong in (
        wrap(0x31, b"".join(three)),
        wrap(0x30, b"".join(three[:2])),
        wrap(0x30, b"".join(three) + b"\x05\x00"),
        wrap(0x30, pieces.tbs + pieces.outer_algorithm + wrap(4, b"\0" + pieces.signature)),
        wrap(0x30, pieces.tbs + pieces.outer_algorithm + wrap(3, b"\1" + pieces.signature)),
        wrap(0x30, wrap(0x30, b"".join(part.encoded for part in body[:3])) + three[1] + three[2]),
        wrap(0x30, wrap(0x30, b"".join(part.encoded for part in body if part.tag != 0x30)) + three[1] + three[2]),
    ):
        with pytest.raises(DerInvalid):
            cut(wrong)


def test_the_value_of_an_alternative_name_is_wrapped():
    oid = bytes.fromhex("0603551d11")
    assert mend(wrap(0x30, oid + wrap(4, b"\x30\x00"))) == wrap(0x30, oid + wrap(4, b"\x30\x00"))
    with pytest.raises(DerInvalid):
        mend(wrap(0x30, oid + wrap(5, b"")))


# --- names ----------------------------------------------------------------------------------------------------------


def attribute(tag, content, kind=b"\x55\x04\x03"):
    return wrap(0x30, wrap(6, kind) + wrap(tag, content))


def relative(*attributes):
    return wrap(0x31, b"".join(attributes))


def test_names_are_compared_as_text():
    first = parse_name(wrap(0x30, relative(attribute(0x13, b"Acme  Corp")) + relative(attribute(0x0C, b"x"))))
    for tag, text in (
        (0x0C, b"ACME corp"),
        (0x16, b" acme Corp "),
        (0x14, b"acme corp"),
        (0x1E, "acme corp".encode("utf-16-be")),
        (0x1C, "acme corp".encode("utf-32-be")),
    ):
        assert first.is_below(parse_name(wrap(0x30, relative(attribute(tag, text)))))
    for other in (attribute(0x13, b"Acme Corp2"), attribute(0x13, b"Acme Corp", b"\x55\x04\x0a"), attribute(2, b"\1")):
        assert not first.is_below(parse_name(wrap(0x30, relative(other))))
    assert str(first) == "acme corp, x"
    assert str(parse_name(b"\x30\x00")) == "(no name)"


@pytest.mark.parametrize(
    "content",
    [
        b"\x05\x00",
        wrap(0x30, attribute(0x13, b"a")),
        relative(),
        relative(b"\x05\x00"),
        relative(wrap(0x31, wrap(6, b"\x55") + wrap(0x13, b"a"))),
        relative(wrap(0x30, wrap(6, b"\x55"))),
        relative(wrap(0x30, wrap(6, b"\x55") * 3)),
        relative(wrap(0x30, wrap(4, b"\x55") + wrap(0x13, b"a"))),
        relative(attribute(0x0C, b"\xff")),
        relative(attribute(0x1E, b"\0")),
    ],
)
def test_what_is_no_name(content):
    with pytest.raises(DerInvalid):
        parse_name(wrap(0x30, content))
    with pytest.raises(DerInvalid):
        parse_name(content)
