"""Disks as an attacker, or a technician, reads and writes them."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umec_images.machine import NodeImageFolder, install, open_folder
from umec_images.machine.errors import DiskUnreadable, ImageIncomplete, MachineFailed
from umec_images.machine.esp import read_files
from umec_images.machine.partitions import Span, read_span, spans, write_span
from umec_images.nodeimage.disk import MEBIBYTE
from umec_images.nodeimage.fat import file_system

ANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
FILES = {"EFI/BOOT/BOOTX64.EFI": b"k" * 5000, "EFI/EMPTY.TXT": b"", "EFI/UMEC/A.BIN": b"a" * 512, "TOP.TXT": b"t"}


def test_partitions_are_found_by_name(image: NodeImageFolder) -> None:
    found = spans(image.disk)
    assert {name: (span.start // MEBIBYTE, span.size // MEBIBYTE) for name, span in found.items()} == {
        "esp": (1, 36),
        "root-a": (37, 1),
        "root-b": (38, 1),
        "data": (39, 1),
    }
    assert read_span(image.disk, found["root-a"])[:17] == b"hsqs of version 2"


@pytest.mark.parametrize(
    ("place", "data", "said"),
    [
        (512, b"NOT PART", "no GUID partition table"),
        (512 + 80, b"\xff\xff\xff\xff", "no table that is read here"),
        (512 + 80, b"\0\0\0\0", "no table that is read here"),
        (512 + 72, b"\xff" * 8, "no table that is read here"),
        (512 + 84, b"\x40\0\0\0", "no table that is read here"),
        (512 + 72, (41 * MEBIBYTE // 512 - 1).to_bytes(8, "little"), "ends in its partition table"),
        (1024 + 40, b"\1" + bytes(7), "beyond its end"),
        (1024 + 40, b"\xff" * 8, "beyond its end"),
        (1024 + 32, b"\0" * 8, "beyond its end"),
        (1024 + 128 + 56, "esp".encode("utf-16-le").ljust(12, b"\0"), "two partitions"),
        (1024, b"\0" * 128 * 128, "has no partition"),
    ],
)
def test_a_table_that_is_none(image: NodeImageFolder, tmp_path: Path, place: int, data: bytes, said: str) -> None:
    disk = tmp_path / "disk.img"
    shutil.copyfile(image.disk, disk)
    assert set(spans(disk)) == {"esp", "root-a", "root-b", "data"}
    with disk.open("r+b") as file:
        file.seek(place)
        file.write(data)
    with pytest.raises(DiskUnreadable) as refused:
        spans(disk)
    assert refused.value.code == "disk-unreadable"
    assert said in refused.value.detail


@ANY
@given(data=st.binary(max_size=2048))
def test_any_bytes_are_partitions_or_no_disk(tmp_path: Path, data: bytes) -> None:
    disk = tmp_path / "any.img"
    disk.write_bytes(b"\0" * 512 + b"EFI PART" + data)
    with contextlib.suppress(DiskUnreadable):
        assert spans(disk)


def test_a_partition_is_not_left(image: NodeImageFolder, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    shutil.copyfile(image.disk, disk)
    before = disk.read_bytes()
    span = Span(MEBIBYTE, 8)
    for offset in (-1, 1, 9):
        with pytest.raises(DiskUnreadable):
            write_span(disk, span, offset, b"12345678")
    assert disk.read_bytes() == before
    write_span(disk, span, 0, b"12345678")
    assert read_span(disk, span) == b"12345678"


def partition(files: dict[str, bytes]) -> bytearray:
    made = bytearray(36 * MEBIBYTE)
    for offset, piece in file_system(files, len(made)):
        made[offset : offset + len(piece)] = piece
    return made


def test_files_are_read_as_they_were_written() -> None:
    assert read_files(bytes(partition(FILES))) == FILES


@pytest.mark.parametrize(
    ("place", "data"),
    [
        (510, b"\0\0"),  # no boot sector
        (11, b"\1\0"),  # sectors of one byte
        (13, b"\0"),  # clusters of no sector
        (44, b"\xff\xff\xff\x0e"),  # the root folder lies nowhere
        (44, b"\0\0\0\0"),
        (32 * 512 + 4 * 2, b"\2\0\0\0"),  # the root folder goes on with itself
        (32 * 512 + 4 * 2, b"\1\0\0\0"),
    ],
)
def test_a_file_system_that_is_none(place: int, data: bytes) -> None:
    made = partition(FILES)
    made[place : place + len(data)] = data
    with pytest.raises(DiskUnreadable) as refused:
        read_files(bytes(made))
    assert refused.value.code == "disk-unreadable"


def folder_of(cluster: int) -> int:
    table = -(-(36 * MEBIBYTE // 512 - 32 + 4) * 4 // (512 + 8))
    return (32 + 2 * table + cluster - 2) * 512


def test_a_cluster_behind_the_end() -> None:
    made = partition(FILES)
    length = int.from_bytes(made[36:40], "little") * 512
    last = length // 4 - 1  # in the table, and not in the data
    made[44:48] = last.to_bytes(4, "little")
    made[32 * 512 + 4 * last : 32 * 512 + 4 * last + 4] = b"\xff\xff\xff\x0f"
    with pytest.raises(DiskUnreadable, match="leads nowhere"):
        read_files(bytes(made))


def test_more_files_than_are_read() -> None:
    names = [f"{n}.TXT" for n in range(13)]
    many = {f"D{top}/{place}{name}": b"" for top in range(15) for place in ("", "S/") for name in names}
    few = {name: b"" for name in many if name.startswith(("D1/", "D2/"))}
    assert set(read_files(bytes(partition(few)))) == set(few)
    with pytest.raises(DiskUnreadable, match="more than 256 files"):
        read_files(bytes(partition(many)))


def test_a_folder_in_itself_ends() -> None:
    made = partition({"EFI/A.TXT": b"a"})
    entry = folder_of(2) + 32  # behind the label: EFI
    assert made[entry : entry + 3] == b"EFI"
    made[entry + 26 : entry + 28] = b"\2\0"
    with pytest.raises(DiskUnreadable, match="without an end"):
        read_files(bytes(made))


def test_a_file_that_is_longer_than_its_clusters() -> None:
    made = partition({"A.TXT": b"a"})
    entry = folder_of(2) + 32
    made[entry + 28 : entry + 32] = (513).to_bytes(4, "little")
    with pytest.raises(DiskUnreadable, match="longer than its clusters"):
        read_files(bytes(made))
    made[entry + 28 : entry + 32] = (512).to_bytes(4, "little")
    assert read_files(bytes(made)) == {"A.TXT": b"a" + bytes(511)}


@given(data=st.binary(max_size=1500), tail=st.binary(max_size=600))
def test_any_bytes_are_files_or_no_file_system(data: bytes, tail: bytes) -> None:
    made = bytearray(partition_head() + tail)
    made[11 : 11 + min(len(data), 499)] = data[:499]
    for tried in (data, bytes(made)):
        with contextlib.suppress(DiskUnreadable):
            read_files(tried)


def partition_head() -> bytes:
    return bytes(510) + b"\x55\xaa"


def test_another_image_leaves_the_data_of_the_node(
    image: NodeImageFolder, older_image: NodeImageFolder, tmp_path: Path
) -> None:
    node = tmp_path / "node"
    install(older_image, node)
    disk = node / "disk.img"
    assert disk.read_bytes() == older_image.disk.read_bytes()
    write_span(disk, spans(disk)["data"], 0, b"the node's own")
    (node / "vars.fd").write_bytes(b"changed since")
    install(image, node)
    data = spans(disk)["data"]
    assert read_span(disk, data).startswith(b"the node's own")
    assert disk.read_bytes()[: data.start] == image.disk.read_bytes()[: data.start]
    assert (node / "vars.fd").read_bytes() == image.variables.read_bytes()


def test_a_disk_of_another_layout_is_replaced(image: NodeImageFolder, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    shutil.copyfile(image.disk, disk)
    with disk.open("r+b") as file:
        file.seek(1024 + 3 * 128 + 56)
        file.write("other".encode("utf-16-le"))
    assert set(spans(disk)) == {"esp", "root-a", "root-b", "other"}
    install(image, tmp_path)
    assert disk.read_bytes() == image.disk.read_bytes()


def test_a_disk_that_cannot_be_written(image: NodeImageFolder, tmp_path: Path) -> None:
    (tmp_path / "disk.img").symlink_to(tmp_path / "nowhere" / "disk.img")
    with pytest.raises(MachineFailed) as refused:
        install(image, tmp_path)
    assert refused.value.code == "machine-failed"


def test_a_folder_is_opened(image: NodeImageFolder) -> None:
    assert (image.name, image.version) == ("machine", 2)


@pytest.mark.parametrize("name", ["manifest.json", "firmware.json", "disk.img", "vars.fd"])
def test_a_folder_that_lacks_something(image_folder: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    for each in image_folder.iterdir():
        (folder / each.name).symlink_to(each)
    assert open_folder(folder).version == 2
    (folder / name).unlink()
    with pytest.raises(ImageIncomplete) as refused:
        open_folder(folder)
    assert refused.value.code == "node-image-incomplete"
    assert name in refused.value.detail


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", b"{", "is not JSON"),
        ("manifest.json", b"[]", "holds no JSON object"),
        ("manifest.json", b'{"name": "a"}', "lacks"),
        ("manifest.json", b'{"name": "a", "version": "x"}', "lacks"),
        ("manifest.json", b" " * (16 * MEBIBYTE + 1), "is larger than"),
        ("firmware.json", b"{}", "lacks"),
    ],
    ids=["cut", "a list", "no version", "no number", "large", "no firmware"],
)
def test_a_folder_whose_papers_are_none(
    image_folder: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    for each in image_folder.iterdir():
        (folder / each.name).symlink_to(each)
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(ImageIncomplete, match=said):
        open_folder(folder)


def test_another_firmware_than_the_image_was_built_for(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    for each in image_folder.iterdir():
        (folder / each.name).symlink_to(each)
    firmware = json.loads((image_folder / "firmware.json").read_text())
    other = tmp_path / "other.fd"
    other.write_bytes(b"another firmware")
    (folder / "firmware.json").unlink()
    (folder / "firmware.json").write_text(json.dumps(firmware | {"code": str(other)}))
    with pytest.raises(ImageIncomplete, match=hashlib.sha256(b"another firmware").hexdigest()):
        open_folder(folder)
