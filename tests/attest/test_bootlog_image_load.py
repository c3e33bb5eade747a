"""Device paths of loaded images: shown, and never a crash."""

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.bootlog.image_load import device_path

END = b"\x7f\xff\4\0"
GUID = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")


def node(kind, subtype, body):
    return struct.pack("<BBH", kind, subtype, 4 + len(body)) + body


def event(*nodes, length=None):
    path = b"".join(nodes)
    return struct.pack("<QQQQ", 1, 2, 3, len(path) if length is None else length) + path


ROOT = node(2, 1, struct.pack("<II", 0x0A0341D0, 1))


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (ROOT, "PciRoot(0x1)"),
        (node(2, 1, struct.pack("<II", 0x050141D0, 2)), "Acpi(0x050141d0,0x2)"),
        (node(1, 1, b"\x01\x1f"), "Pci(0x1f,0x1)"),
        (node(4, 1, struct.pack("<IQQ", 2, 3, 4) + GUID.bytes_le + b"\2\2"), f"HD(2,{GUID})"),
        (node(4, 4, "\\EFI\\BOOT\\BOOTX64.EFI\0".encode("utf-16-le")), "\\EFI\\BOOT\\BOOTX64.EFI"),
        (node(4, 6, GUID.bytes_le), f"Fv({GUID})"),
        (node(4, 7, GUID.bytes_le), f"Fv({GUID})"),
        (node(4, 8, struct.pack("<IQQ", 0, 0xF600, 0x207FF)), "Offset(0xf600,0x207ff)"),
        (node(3, 11, b"\1\2"), "Path(3,11,0102)"),
        (node(1, 1, b"\1"), "Path(1,1,01)"),
        (node(2, 1, bytes(9)), f"Path(2,1,{'00' * 9})"),
        (b"", ""),
    ],
)
def test_a_path_as_text(made, text):
    assert device_path(event(made, END)) == text


def test_nodes_in_a_row():
    assert device_path(event(ROOT, node(1, 1, b"\0\3"), END)) == "PciRoot(0x1)/Pci(0x3,0x0)"
    assert device_path(event()) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        event(ROOT, END)[:31],
        event(ROOT, END)[:-1],
        event(ROOT, END) + b"\0",
        event(ROOT, length=5),
        event(b"\1\1\3\0"),
        event(b"\1\1\0\0"),
        event(b"\1\1\5\0"),
        event(b"\1"),
        event(b"\1\1"),
        event(b"\1\1\4"),
    ],
)
def test_data_that_is_no_such_event(data):
    assert device_path(event(ROOT, END)) is not None
    assert device_path(data) is None


@given(data=st.binary(max_size=120), whole=st.booleans())
def test_any_bytes_give_a_path_or_none(data, whole):
    found = device_path(event(data) if whole else data)
    assert found is None or "\0" not in found or b"\0" in data
