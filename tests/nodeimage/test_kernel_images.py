"""Unified kernel images: what is put together reads the same with the verifier's own parser, and is signed right."""

import hashlib
import struct
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.predict.pe import parse_pe
from umec_attest.testing.pe import make_pe
from umec_images.authority.der import Reader, tlv
from umec_images.nodeimage.authenticode import sign_image, verify_signed
from umec_images.nodeimage.errors import UkiInvalid
from umec_images.nodeimage.keys import load_signer, make_keys
from umec_images.nodeimage.uki import SECTIONS, assemble

PARTS = {".osrel": b"ID=x\n", ".cmdline": b"a b", ".initrd": b"i" * 5000, ".linux": b"k" * 513}


def stub(*, headers: int = 1024, alignment: int = 512, sections: int = 2, trailing: bytes = b"symbols") -> bytes:
    """A PE32+ image such as a linker makes: headers, sections, and a table of symbols behind them."""
    optional_size = 112 + 16 * 8
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, sections, 0, headers + sections * 512, 3, optional_size, 0x206)
    optional = bytearray(optional_size)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<II", optional, 32, 512, alignment)
    struct.pack_into("<II", optional, 56, 0x5000, headers)
    struct.pack_into("<I", optional, 64, 0xABCD)
    struct.pack_into("<I", optional, 108, 16)
    table = b"".join(
        struct.pack(
            "<8sIIIIIIHHI", b".s%d" % n, 300, 0x4000 + n * 0x1000, 512, headers + n * 512, 0, 0, 0, 0, 0x60000020
        )
        for n in range(sections)
    )
    whole = (head + coff + bytes(optional) + table).ljust(headers, b"\0")
    return whole + b"s" * (512 * sections) + trailing


OPTIONAL = 64 + 24


def changed(data: bytes, at: int, form: str, *values: int) -> bytes:
    copy = bytearray(data)
    struct.pack_into(form, copy, at, *values)
    return bytes(copy)


def refused(data: bytes, parts, why: str) -> None:
    with pytest.raises(UkiInvalid, match=why) as caught:
        assemble(data, parts)
    assert caught.value.code == "uki-invalid"
    assert parse_pe(assemble(stub(), PARTS), what="it").sections


def test_every_section_is_there_as_it_was_given():
    image = parse_pe(assemble(stub(), PARTS), what="it")
    assert [section.name for section in image.sections] == [".s0", ".s1", *SECTIONS]
    assert {name: image.section(name) for name in SECTIONS} == PARTS


def test_sections_stand_apart_in_memory_and_within_the_image():
    image = assemble(stub(), PARTS)
    (table,) = [OPTIONAL + struct.unpack_from("<H", image, 64 + 20)[0]]
    spans = []
    for number in range(6):
        _, virtual, address, *_ = struct.unpack_from("<8sIII", image, table + number * 40)
        spans.append((address, address + virtual))
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(start % 4096 == 0 for start, _ in spans[2:])
    assert spans[-1][1] <= struct.unpack_from("<I", image, OPTIONAL + 56)[0]


def test_nothing_is_left_that_no_firmware_hashes():
    image = assemble(stub(), PARTS)
    assert b"symbols" not in image
    assert struct.unpack_from("<II", image, 64 + 12) == (0, 0)
    assert struct.unpack_from("<I", image, OPTIONAL + 64) == (0,)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "MZ"),
        (b"MZ", "middle"),
        (b"ZM" + stub()[2:], "MZ"),
        (changed(stub(), 64, "<I", 0), "PE signature"),
        (changed(stub(), OPTIONAL, "<H", 0x10B), "PE32"),
        (changed(stub(), 64 + 6, "<H", 0), "no sections"),
        (changed(stub(), 64 + 6, "<H", 60000), "middle"),
        (changed(stub(), OPTIONAL + 36, "<I", 0), "alignment"),
        (changed(stub(), OPTIONAL + 36, "<I", 513), "alignment"),
        (changed(stub(), OPTIONAL + 112 + 32, "<II", 4096, 8), "signed"),
        (stub(headers=512), "room"),
        (stub()[:1500], "behind its file"),
        (assemble(stub(headers=2048), PARTS), "already has"),
    ],
)
def test_what_is_no_stub_is_refused(data, why):
    refused(data, PARTS, why)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_is_missing_or_empty_is_refused(name):
    refused(stub(), {other: data for other, data in PARTS.items() if other != name}, "and nothing else")
    refused(stub(), PARTS | {name: b""}, f"{name}: nothing in it")


def test_a_section_too_many_is_refused():
    refused(stub(), PARTS | {".dtb": b"x"}, "and nothing else")


@given(st.binary(max_size=64), st.integers(0, 1500), st.sampled_from([stub(), stub(headers=512)]))
def test_any_bytes_are_a_stub_or_refused(noise, at, base):
    data = base[:at] + noise + base[at + len(noise) :]
    try:
        image = assemble(data, PARTS)
    except UkiInvalid:
        return
    assert len(image) >= sum(map(len, PARTS.values()))


def signature_of(image: bytes) -> tuple[bytes, bytes]:
    """The image without its signature, and the signature's DER."""
    offset, size = struct.unpack_from("<II", image, OPTIONAL + 112 + 32)
    length, revision, kind = struct.unpack_from("<IHH", image, offset)
    assert (offset + size, length, revision, kind) == (len(image), size, 0x0200, 0x0002)
    whole = Reader(image[offset + 8 :])
    content = whole.read(0x30)
    assert whole.data[whole.offset :].strip(b"\0") == b""
    return image[:offset], tlv(0x30, content)


def test_a_signed_image_carries_the_digest_that_a_firmware_computes(signer):
    image = sign_image(assemble(stub(), PARTS), signer)
    digest = parse_pe(image, what="it").authenticode_sha256()
    _, der = signature_of(image)
    assert digest in der
    assert parse_pe(assemble(stub(), PARTS), what="it").authenticode_sha256() == digest


def test_the_signature_verifies_with_the_certificate_in_it(signer):
    _, der = signature_of(sign_image(assemble(stub(), PARTS), signer))
    assert load_der_pkcs7_certificates(der) == [signer.certificate]
    attributes, signature, about = parts_of(der)
    signer.certificate.public_key().verify(signature, b"\x31" + attributes[1:], PKCS1v15(), SHA256())
    assert hashlib.sha256(about).digest() in attributes
    with pytest.raises(InvalidSignature):
        signer.certificate.public_key().verify(signature, b"\x31" + attributes[1:-1] + b"x", PKCS1v15(), SHA256())


def parts_of(der: bytes) -> tuple[bytes, bytes, bytes]:
    """The signed attributes as they are encoded, the signature, and the content that they name."""
    outer = Reader(der).enter(0x30)
    outer.read(0x06)
    data = outer.enter(0xA0).enter(0x30)
    data.read(0x02)
    data.read(0x31)
    content = data.enter(0x30)
    content.read(0x06)
    about = content.enter(0xA0).read(0x30)
    data.read(0xA0)
    info = data.enter(0x31).enter(0x30)
    info.read(0x02)
    info.read(0x30)
    info.read(0x30)
    start = info.offset
    info.read(0xA0)
    attributes = info.data[start : info.offset]
    info.read(0x30)
    return attributes, info.read(0x04), about


def test_the_same_image_is_signed_to_the_same_bytes(signer):
    image = assemble(stub(), PARTS)
    assert sign_image(image, signer) == sign_image(image, signer)


def test_what_is_signed_is_not_signed_again(signer):
    image = sign_image(assemble(stub(), PARTS), signer)
    with pytest.raises(UkiInvalid, match="signed already") as caught:
        sign_image(image, signer)
    assert caught.value.code == "uki-invalid"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"MZ" + bytes(100), make_pe({".x": b"y"})[:100], bytes(400)),
        changed(stub(), 64, "<I", 0),
        changed(stub(), OPTIONAL, "<H", 0x10B),
    ],
)
def test_what_is_no_image_is_not_signed(signer, data):
    with pytest.raises(UkiInvalid) as caught:
        sign_image(data, signer)
    assert caught.value.code == "uki-invalid"
    assert sign_image(stub(), signer)


@pytest.fixture(scope="session")
def signed_image(key_folder):
    signer = load_signer(key_folder)
    return sign_image(assemble(stub(), PARTS), signer), signer.certificate


def unverified(image: bytes, certificate, why: str) -> None:
    with pytest.raises(UkiInvalid, match=why) as caught:
        verify_signed(image, certificate)
    assert caught.value.code == "uki-invalid"


def test_what_was_signed_here_is_verified(signer):
    for parts in (PARTS, PARTS | {".linux": b"k" * 1001}):
        verify_signed(sign_image(assemble(stub(), parts), signer), signer.certificate)


def test_an_image_without_a_signature_is_not_verified(signer):
    for image in (assemble(stub(), PARTS), b"", b"MZ" + bytes(400), sign_image(stub(), signer)[:120]):
        unverified(image, signer.certificate, "signature|image|signed")
    verify_signed(sign_image(assemble(stub(), PARTS), signer), signer.certificate)


@given(place=st.floats(0, 0.999999), change=st.integers(1, 255))
def test_no_byte_of_a_signed_image_may_be_another(signed_image, place, change):
    image, certificate = signed_image
    at = int(place * len(image))
    other = image[:at] + bytes([image[at] ^ change]) + image[at + 1 :]
    checksum = range(OPTIONAL + 64, OPTIONAL + 68)
    if at in checksum:  # no part of what is signed, as firmware hashes it
        return
    with pytest.raises(UkiInvalid):
        verify_signed(other, certificate)


def test_a_signature_of_another_key_is_refused(signed_image, tmp_path):
    image, certificate = signed_image
    make_keys(tmp_path / "other", datetime(2026, 11, 22, tzinfo=UTC))
    unverified(image, load_signer(tmp_path / "other").certificate, "none over this image")
    verify_signed(image, certificate)


def test_what_is_behind_a_signature_is_refused(signed_image):
    image, certificate = signed_image
    for other in (image + bytes(8), image[:-1], image + b"x"):
        unverified(other, certificate, "signature")
    verify_signed(image, certificate)


def test_a_certificate_of_another_kind_of_key_verifies_nothing(signed_image):
    image, certificate = signed_image
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(certificate.not_valid_before_utc)
    unverified(image, builder.not_valid_after(certificate.not_valid_after_utc).sign(key, SHA256()), "no RSA key")
    verify_signed(image, certificate)
