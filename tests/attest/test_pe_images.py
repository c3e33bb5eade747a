"""PE images: each field wrong in turn, and limits; the image without the fault is predicted."""

import struct

import pytest

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict import folder
from umec_attest.predict.folder import read_image
from umec_attest.predict.model import NodeImage, predict_image
from umec_attest.predict.pe import MAX_ZEROS, parse_pe
from umec_attest.testing.image import make_image
from umec_attest.testing.pe import make_pe

GOOD = make_pe({".linux": b"kernel" * 200, ".initrd": b"initrd"})
HEADER = struct.unpack_from("<I", GOOD, 0x3C)[0]
OPTIONAL = HEADER + 24
HEADERS_SIZE = OPTIONAL + 60
CERTIFICATES = OPTIONAL + 112 + 4 * 8
TABLE = OPTIONAL + struct.unpack_from("<H", GOOD, HEADER + 20)[0]
SECTION = 40


def changed(at, form, *values):
    data = bytearray(GOOD)
    struct.pack_into(form, data, at, *values)
    return bytes(data)


def refused(data, why):
    with pytest.raises(ImageFolderInvalid, match=why) as caught:
        parse_pe(data, what="image")
    assert caught.value.code == "image-folder-invalid"
    assert parse_pe(GOOD, what="image").authenticode_sha256()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"ZM" + GOOD[2:], "MZ"),
        (changed(HEADER, "<4s", b"NE"), "no PE signature"),
        (changed(OPTIONAL, "<H", 0x107), "neither PE32"),
        (changed(OPTIONAL + 108, "<I", 4), "no certificate entry"),
        (changed(CERTIFICATES, "<II", len(GOOD) - 16, 8), "not at the end"),
        (changed(HEADERS_SIZE, "<I", TABLE), "headers are larger or smaller"),
        (changed(HEADERS_SIZE, "<I", len(GOOD) + 1), "headers are larger or smaller"),
        (changed(TABLE + 8, "<I", 2**30 + 1), "beyond the limit"),
        (changed(TABLE + SECTION + 20, "<I", 0x200), "overlaps"),
    ],
)
def test_fields_out_of_bounds(data, why):
    refused(data, why)


def test_a_certificate_entry_beyond_the_optional_header():
    size = struct.unpack_from("<H", GOOD, HEADER + 20)[0]
    data = bytearray(GOOD)
    struct.pack_into("<H", data, HEADER + 20, 112 + 4 * 8 + 4)
    del data[TABLE - (size - 112 - 4 * 8 - 4) : TABLE]
    refused(bytes(data), "no certificate entry")


def test_more_sections_than_a_loader_accepts():
    refused(make_pe({f".s{n}": b"" for n in range(96)}), "headers are larger or smaller")
    assert len(parse_pe(make_pe({f".s{n}": b"" for n in range(95)}), what="image").sections) == 96


def test_a_section_that_is_there_twice():
    data = bytearray(GOOD)
    struct.pack_into("<8s", data, TABLE + 2 * SECTION, b".linux")
    with pytest.raises(ImageFolderInvalid, match="2 times"):
        parse_pe(bytes(data), what="image").section(".linux")
    assert parse_pe(GOOD, what="image").section(".linux") == b"kernel" * 200


def test_a_section_that_is_much_longer_in_memory_than_in_the_file():
    """A file of a few bytes must not become a gigabyte of zeros."""
    at, stored = section_header(b".linux")
    longest = parse_pe(changed(at + 8, "<I", stored + MAX_ZEROS), what="image").section(".linux")
    assert len(longest) == stored + MAX_ZEROS
    with pytest.raises(ImageFolderInvalid, match="the file has"):
        parse_pe(changed(at + 8, "<I", stored + MAX_ZEROS + 1), what="image").section(".linux")


def section_header(name):
    """Return where the header of a section is, and how many bytes of the file it has."""
    at = GOOD.index(name.ljust(8, b"\0"), TABLE)
    return at, struct.unpack_from("<I", GOOD, at + 16)[0]


def test_files_beyond_the_limit_and_variables_that_are_missing(tmp_path, monkeypatch):
    place = make_image(tmp_path)
    image = read_image(place)
    variables = {name: value for name, value in image.variables.items() if name != "dbx"}
    with pytest.raises(ImageFolderInvalid, match="variables are missing: dbx"):
        predict_image(NodeImage(image.firmware, image.firmware_version, variables, image.uki))
    assert predict_image(image)
    monkeypatch.setattr(folder, "MAX_FILE_SIZE", (place / "uki.efi").stat().st_size - 1)
    with pytest.raises(ImageFolderInvalid, match=r"uki.efi is larger"):
        read_image(place)
