"""Asking a firmware for one start: the variables, as UEFI and EDK II say them."""

import shutil
import struct
import uuid

import pytest

from umec_images.update import EfiVariables
from umec_images.update.errors import VariablesUnusable
from umec_images.update.firmware import ask_no_more, ask_once
from umec_images.update.layout import read_layout
from umec_images.update.store import StoreVariables

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")


def test_the_option_names_the_file_on_the_partition(node):
    esp = read_layout(node).esp
    ask_once(node.firmware, esp, "EFI/BOOT/OTHER.EFI")
    assert node.variables["BootNext"] == b"\x45\x4d"
    option = node.variables["Boot4D45"]
    attributes, length = struct.unpack_from("<IH", option)
    description, _, _ = option[6:].decode("utf-16-le", "replace").partition("\0")
    assert (attributes, description) == (1, "umec: the other image")
    paths = option[-length:]
    number, start, size, identity, form, kind = struct.unpack_from("<IQQ16sBB", paths, 4)
    assert paths[:4] == b"\x04\x01\x2a\x00"
    assert (number, start * 512, size * 512, form, kind) == (1, esp.area.start, esp.area.size, 2, 2)
    assert uuid.UUID(bytes_le=identity) == esp.identity == uuid.UUID(bytes_le=bytes(node.data[1024 + 16 : 1024 + 32]))
    name = "\\EFI\\BOOT\\OTHER.EFI\0".encode("utf-16-le")
    assert paths[42:] == b"\x04\x04" + struct.pack("<H", 4 + len(name)) + name + b"\x7f\xff\x04\x00"
    ask_no_more(node.firmware)
    assert "BootNext" not in node.variables


def stored(path):
    """The variables of a store that count, by the specification."""
    store, found = path.read_bytes(), {}
    place = struct.unpack_from("<H", store, 48)[0] + 28
    while store[place : place + 2] == b"\xaa\x55":
        state, attributes = struct.unpack_from("<BxI", store, place + 2)
        name_size, size = struct.unpack_from("<II", store, place + 36)
        vendor = uuid.UUID(bytes_le=store[place + 44 : place + 60])
        name = store[place + 60 : place + 60 + name_size].decode("utf-16-le").rstrip("\0")
        if state == 0x3F:
            assert (vendor, name) not in found
            found[vendor, name] = (attributes, store[place + 60 + name_size :][:size])
        place += -(-(60 + name_size + size) // 4) * 4
    assert set(store[place : place + 4]) == {0xFF}
    return found


@pytest.fixture
def store(variables_file, tmp_path):
    return shutil.copyfile(variables_file, tmp_path / "vars.fd")


def test_a_store_gets_variables_and_keeps_its_own(store):
    before, size = stored(store), store.stat().st_size
    assert {name for _, name in before} == {"PK", "KEK", "db", "SecureBootEnable"}
    variables = StoreVariables(store)
    variables.write("BootNext", b"\x01\x00")
    variables.write("Boot4D45", b"odd")
    variables.write("BootNext", b"\x45\x4d")
    assert stored(store) == before | {(GLOBAL, "BootNext"): (7, b"\x45\x4d"), (GLOBAL, "Boot4D45"): (7, b"odd")}
    assert store.stat().st_size == size
    assert store.read_bytes().endswith(b"what is behind it")
    variables.remove("BootNext")
    variables.remove("BootNext")
    variables.remove("Boot4D45")
    assert stored(store) == before


def test_a_deleted_variable_stays_deleted(store):
    """A firmware deletes by a bit in the state; what it deleted does not come back."""
    StoreVariables(store).write("BootNext", b"\x01\x00")
    data = bytearray(store.read_bytes())
    place = data.index("BootNext".encode("utf-16-le")) - 60
    data[place + 2] &= 0xFD
    store.write_bytes(data)
    assert (GLOBAL, "BootNext") not in stored(store)
    StoreVariables(store).write("Boot4D45", b"x")
    assert (GLOBAL, "BootNext") not in stored(store)


def test_another_vendors_variable_of_the_same_name_stays(store):
    StoreVariables(store).write("BootNext", b"\x01\x00")
    data = bytearray(store.read_bytes())
    place = data.index("BootNext".encode("utf-16-le")) - 16
    data[place : place + 16] = uuid.UUID(int=7).bytes_le
    store.write_bytes(data)
    StoreVariables(store).write("BootNext", b"\x02\x00")
    assert stored(store)[uuid.UUID(int=7), "BootNext"] == (7, b"\x01\x00")
    assert stored(store)[GLOBAL, "BootNext"] == (7, b"\x02\x00")


@pytest.mark.parametrize(
    ("offset", "data"),
    [(40, b"X"), (72, b"X"), (88, b"\xff\xff\xff\x7f"), (48, b"\xff\xff"), (136, b"\xff\xff\xff\x00")],
    ids=["volume", "store", "size", "header", "variable"],
)
def test_a_file_that_is_no_store_is_refused_and_kept(store, offset, data):
    StoreVariables(store).remove("BootNext")
    content = bytearray(store.read_bytes())
    content[offset : offset + len(data)] = data
    store.write_bytes(content)
    with pytest.raises(VariablesUnusable) as caught:
        StoreVariables(store).write("BootNext", b"\x01\x00")
    assert caught.value.code == "firmware-variables-unusable"
    assert store.read_bytes() == content


def test_a_file_that_is_not_there_and_one_that_is_too_short_are_refused(tmp_path):
    (tmp_path / "short").write_bytes(b"short")
    for name in ("short", "absent"):
        with pytest.raises(VariablesUnusable):
            StoreVariables(tmp_path / name).remove("BootNext")


def test_a_full_store_is_refused(store):
    with pytest.raises(VariablesUnusable, match="no room") as caught:
        StoreVariables(store).write("Boot4D45", bytes(64 * 1024))
    assert caught.value.code == "firmware-variables-unusable"
    StoreVariables(store).write("Boot4D45", bytes(1024))


def test_a_store_that_is_too_large_is_refused(store):
    with store.open("r+b") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    with pytest.raises(VariablesUnusable):
        StoreVariables(store).remove("BootNext")


def test_linux_gets_attributes_and_value_in_one_write(tmp_path):
    variables = EfiVariables(tmp_path)
    variables.write("BootNext", b"\x45\x4d")
    path = tmp_path / "BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    assert path.read_bytes() == b"\x07\0\0\0\x45\x4d"
    variables.remove("BootNext")
    variables.remove("BootNext")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_such_variables_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for attempt in (
        lambda: EfiVariables(tmp_path / "absent").write("BootNext", b"\0\0"),
        lambda: EfiVariables(tmp_path / "file").remove("BootNext"),
    ):
        with pytest.raises(VariablesUnusable) as caught:
            attempt()
        assert caught.value.code == "firmware-variables-unusable"
