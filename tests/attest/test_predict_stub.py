"""Unified kernel images that are not predicted, each with one fault; and what the stub and the kernel measure."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.measure import extend_all, values_of
from umec_attest.predict.stub import UKI_SECTIONS, kernel, read_uki, sections
from umec_attest.testing.pe import make_pe

STUB = b"#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####\0"
KERNEL = b"a kernel: LOADED_IMAGE::LoadOptions\0 Linux initrd\0"
GOOD = {".sdmagic": STUB, ".osrel": b"ID=umec", ".cmdline": b"ro panic=1", ".initrd": b"initrd", ".linux": KERNEL}
TABLE = 0x80 + 24 + 112 + 16 * 8
SECTION = 40


def sha256(data):
    return hashlib.sha256(data).digest()


def refused(sections, why):
    with pytest.raises(ImageFolderInvalid, match=why) as caught:
        read_uki(sections if isinstance(sections, bytes) else make_pe(sections))
    assert caught.value.code == "image-folder-invalid"
    assert read_uki(make_pe(GOOD)).sections[".linux"] == KERNEL


@pytest.mark.parametrize("name", UKI_SECTIONS)
def test_a_section_that_is_missing_or_empty(name):
    refused({other: content for other, content in GOOD.items() if other != name}, f"nothing in {name}")
    refused(GOOD | {name: b""}, f"nothing in {name}")


@pytest.mark.parametrize("name", [".splash", ".dtb", ".uname", ".pcrsig", ".pcrpkey", ".ucode", ".profile", ".unknown"])
def test_a_section_more(name):
    refused(GOOD | {name: b"x"}, f"not predicted: {name}")


@pytest.mark.parametrize("name", UKI_SECTIONS)
def test_a_section_twice(name):
    data = bytearray(make_pe(GOOD | {".rodata": b"another one"}))
    assert read_uki(bytes(data))
    place = TABLE + SECTION * (1 + len(GOOD))
    assert data[place : place + 8] == b".rodata\0"
    struct.pack_into("<8s", data, place, name.encode())
    refused(bytes(data), f"{name} is there 2 times")


@pytest.mark.parametrize(
    ("magic", "why"),
    [
        (None, "does not say which version"),
        (b"", "does not say which version"),
        (b"#### LoaderInfo: systemd-boot 252.39-1~deb12u2 ####\0", "does not say which version"),
        (b"x" + STUB, "does not say which version"),
        (STUB + b"x", "does not say which version"),
        (b"#### LoaderInfo: systemd-stub 252 39 ####\0", "does not say which version"),
        (b"#### LoaderInfo: systemd-stub 2523 ####\0", "systemd-stub 2523 measures is not known"),
        (b"#### LoaderInfo: systemd-stub 251.1 ####\0", "systemd-stub 251 measures is not known"),
        (b"#### LoaderInfo: systemd-stub 255.4-1 ####\0", "systemd-stub 255 measures is not known"),
    ],
)
def test_another_stub(magic, why):
    sections = {name: content for name, content in GOOD.items() if name != ".sdmagic"}
    refused(sections if magic is None else sections | {".sdmagic": magic}, why)
    assert read_uki(make_pe(sections | {".sdmagic": b"#### LoaderInfo: systemd-stub 252 ####\0"}))


def test_sections_that_overlap_in_memory():
    data = bytearray(make_pe(GOOD))
    place = TABLE + SECTION * 4 + 12  # the address of .initrd, behind .text, .sdmagic, .osrel and .cmdline
    (address,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, address - 0x1000 + len(GOOD[".cmdline"]))
    assert read_uki(bytes(data))  # right behind the one before
    struct.pack_into("<I", data, place, address - 0x1000 + len(GOOD[".cmdline"]) - 1)
    refused(bytes(data), r"\.cmdline and \.initrd overlap")


@pytest.mark.parametrize("line", [b"ro\n", b"ro\0", b"ro \xc3\xa9", b"\tro", b"ro\x7f"])
def test_a_command_line_that_is_more_than_words(line):
    refused(GOOD | {".cmdline": line}, "printable ASCII")
    assert read_uki(make_pe(GOOD | {".cmdline": b" ~ro "}))


@given(st.binary(max_size=400))
def test_any_bytes_are_an_image_or_refused(data):
    with pytest.raises(ImageFolderInvalid):
        read_uki(data)


@given(st.integers(min_value=0, max_value=len(make_pe(GOOD)) - 1), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_is_another_image_or_refused(place, change):
    data = bytearray(make_pe(GOOD))
    data[place] ^= change
    try:
        found = read_uki(bytes(data))
    except ImageFolderInvalid:
        return
    checksum = range(0x80 + 24 + 64, 0x80 + 24 + 68)
    certificates = range(0x80 + 24 + 112 + 32, 0x80 + 24 + 112 + 40)
    good = read_uki(make_pe(GOOD)).image.authenticode_sha256()
    assert found.image.authenticode_sha256() != good or place in {*checksum, *certificates}


def test_what_is_measured_and_in_which_order():
    digests = {name: sha256(name.encode()) for name in UKI_SECTIONS}
    assert values_of({11: sections(digests)})[11] == extend_all(
        sha256(data)
        for data in (
            *(b".linux\0", b".linux", b".osrel\0", b".osrel"),
            *(b".cmdline\0", b".cmdline", b".initrd\0", b".initrd"),
        )
    )
    options, initrd = sha256("ro\0".encode("utf-16-le")), sha256(b"initrd")
    for image, digests_of_it in (
        (KERNEL, [options, initrd]),
        (b"Linux initrd\0", [initrd]),
        (b"LOADED_IMAGE::LoadOptions\0", [options]),
        (b"an older kernel", []),
    ):
        assert [stage.digest for stage in kernel(image, "ro", initrd)] == digests_of_it
