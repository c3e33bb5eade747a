"""Disks of node images: partition table, FAT, dm-verity, archives; each read again by a reader of its own."""

import binascii
import gzip
import hashlib
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_images.machine.esp import read_files
from umec_images.machine.partitions import read_span, spans
from umec_images.nodeimage import cpio
from umec_images.nodeimage.builder import _disk
from umec_images.nodeimage.cpio import Member, archive
from umec_images.nodeimage.disk import MEBIBYTE, Partition, write_disk
from umec_images.nodeimage.errors import ContentRefused, DiskTooSmall
from umec_images.nodeimage.fat import file_system
from umec_images.nodeimage.recipe import parse_recipe
from umec_images.nodeimage.verity import BLOCK, append_tree

KIND = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
PARTITIONS = (Partition("esp", KIND, 2 * MEBIBYTE), Partition("root-a", KIND, MEBIBYTE))
SIZE = 33 * MEBIBYTE


def made(path, *, pieces=(), copies=(), partitions=PARTITIONS):
    write_disk(path, partitions, "seed", pieces, copies)
    return path.read_bytes()


def test_the_partitions_are_where_they_are_said_to_be(tmp_path):
    data = made(tmp_path / "disk", pieces=[("esp", 512, b"first")])
    found = spans(tmp_path / "disk")
    assert {name: (span.start, span.size) for name, span in found.items()} == {
        "esp": (MEBIBYTE, 2 * MEBIBYTE),
        "root-a": (3 * MEBIBYTE, MEBIBYTE),
    }
    assert data[MEBIBYTE + 512 : MEBIBYTE + 517] == b"first"


def test_both_tables_hold_their_checksums_and_name_each_other(tmp_path):
    data = made(tmp_path / "disk")
    last = len(data) // 512 - 1
    for here, other in ((1, last), (last, 1)):
        header = bytearray(data[here * 512 : here * 512 + 92])
        (crc,) = struct.unpack_from("<I", header, 16)
        struct.pack_into("<I", header, 16, 0)
        assert binascii.crc32(bytes(header)) == crc
        assert struct.unpack_from("<QQ", header, 24) == (here, other)
        table, count, size, entries = struct.unpack_from("<QIII", header, 72)
        assert binascii.crc32(data[table * 512 : table * 512 + count * size]) == entries
    assert data[510:512] == b"\x55\xaa"
    assert data[450] == 0xEE


def test_the_same_disk_is_the_same_bytes_and_another_seed_gives_other_identifiers(tmp_path):
    assert made(tmp_path / "a") == made(tmp_path / "b")
    write_disk(tmp_path / "c", PARTITIONS, "other", (), ())
    assert (tmp_path / "c").read_bytes() != made(tmp_path / "a")


def test_what_does_not_fit_is_refused(tmp_path):
    (tmp_path / "root").write_bytes(bytes(MEBIBYTE + 1))
    with pytest.raises(DiskTooSmall, match="root has 1048577") as caught:
        made(tmp_path / "disk", copies=[("root-a", tmp_path / "root")])
    assert caught.value.code == "disk-too-small"
    with pytest.raises(DiskTooSmall, match="esp does not fit"):
        made(tmp_path / "disk", pieces=[("esp", 2 * MEBIBYTE - 1, b"ab")])
    (tmp_path / "root").write_bytes(b"x" * MEBIBYTE)
    data = made(tmp_path / "disk", pieces=[("esp", 2 * MEBIBYTE - 2, b"ab")], copies=[("root-a", tmp_path / "root")])
    assert data[3 * MEBIBYTE - 2 : 3 * MEBIBYTE + 1] == b"abx"


@pytest.mark.parametrize("size", [0, MEBIBYTE // 2, MEBIBYTE + 512])
def test_a_partition_without_whole_mebibytes_is_refused(tmp_path, size):
    with pytest.raises(DiskTooSmall, match="whole MiB") as caught:
        made(tmp_path / "disk", partitions=(Partition("esp", KIND, size),))
    assert caught.value.code == "disk-too-small"


def fat_of(files, size=SIZE) -> bytearray:
    image = bytearray(size)
    for offset, data in file_system(files, size):
        assert not any(image[offset : offset + len(data)]), "two pieces overlap"
        image[offset : offset + len(data)] = data
    return image


def read_fat(image: bytes) -> dict[str, bytes]:
    """Read a FAT32 file system by the specification, with nothing of the writer."""
    sector, cluster, reserved, tables = struct.unpack_from("<HBHB", image, 11)
    (table_size,) = struct.unpack_from("<I", image, 36)
    (root,) = struct.unpack_from("<I", image, 44)
    start, step = (reserved + tables * table_size) * sector, cluster * sector
    first = image[reserved * sector : (reserved + table_size) * sector]
    assert first == image[(reserved + table_size) * sector : (reserved + 2 * table_size) * sector]
    assert image[510:512] == b"\x55\xaa"
    assert (len(image) - start) // step >= 65525

    def content(cluster: int) -> bytes:
        found = b""
        while cluster < 0x0FFFFFF8:
            found += image[start + (cluster - 2) * step : start + (cluster - 1) * step]
            (cluster,) = struct.unpack_from("<I", first, cluster * 4)
        return found

    def walk(cluster: int, prefix: str) -> dict[str, bytes]:
        files = {}
        for entry in struct.iter_unpack("<11sB8xH4xHI", content(cluster)):
            name, attributes, high, low, size = entry
            if name[0] in {0, ord(".")} or attributes & 0x08:
                continue
            path = prefix + name[:8].decode().rstrip() + ("." + name[8:].decode().rstrip()).rstrip(".")
            at = high << 16 | low
            files |= walk(at, f"{path}/") if attributes & 0x10 else {path: content(at)[:size] if size else b""}
        return files

    return walk(root, "")


NAME = st.from_regex(r"[A-Z0-9]{1,8}", fullmatch=True)


@settings(max_examples=8)
@given(st.dictionaries(st.tuples(NAME, NAME), st.binary(max_size=3000), max_size=5))
def test_files_are_read_as_they_were_written(files):
    wanted = {f"D{folder[:7]}/{name}.X": content for (folder, name), content in files.items()}
    assert read_fat(fat_of(wanted)) == wanted


def test_folders_lie_in_folders():
    files = {"EFI/BOOT/BOOTX64.EFI": b"x" * 5000, "A.TXT": b"", "EFI/UMEC/B": b"y"}
    assert read_fat(fat_of(files)) == files


def test_a_partition_with_too_few_clusters_is_refused():
    with pytest.raises(DiskTooSmall, match="too few") as caught:
        fat_of({}, 32 * MEBIBYTE)
    assert caught.value.code == "disk-too-small"
    assert read_fat(fat_of({}, 33 * MEBIBYTE)) == {}


def test_files_that_do_not_fit_are_refused():
    with pytest.raises(DiskTooSmall, match="EFI partition"):
        fat_of({"A": bytes(33 * MEBIBYTE)}, 33 * MEBIBYTE)


@pytest.mark.parametrize("name", ["lower", "NINECHARS", "A.LONG", "A B", ".X", "A.B.C", "Ä"])
def test_a_name_that_is_not_short_is_refused(name):
    with pytest.raises(ContentRefused, match="no short name") as caught:
        fat_of({name: b""})
    assert caught.value.code == "image-content-refused"


def test_a_folder_of_many_files_is_refused():
    with pytest.raises(ContentRefused, match="too many"):
        fat_of({f"F{number}": b"" for number in range(16)})
    assert len(read_fat(fat_of({f"F{number}": b"" for number in range(15)}))) == 15


def test_files_have_sectors_of_the_table_of_their_own():
    image = fat_of({"A": b"x", "B": b"y" * 70_000, "C/D": b"z"})
    (reserved,) = struct.unpack_from("<H", image, 14)
    groups = [image[(reserved + n) * 512 : (reserved + n + 1) * 512] for n in range(6)]
    ends = [sum(entry >= 0x0FFFFFF8 for (entry,) in struct.iter_unpack("<I", group)) for group in groups]
    assert ends == [4, 1, 0, 1, 1, 0]  # folders, and what stands for no cluster; A; B in two; D


RECIPE = b"""
name = "n"
version = 1
packages = ["python3"]
kernel = { package = "linux" }
disk = { esp = 33, root = 1, data = 1 }
"""


def test_the_efi_partition_has_room_for_the_next_kernel_image(tmp_path):
    recipe = parse_recipe(RECIPE)
    (tmp_path / "root.img").write_bytes(bytes(4096))
    with pytest.raises(DiskTooSmall, match="EFI partition") as caught:
        _disk(recipe, bytes(17 * MEBIBYTE), tmp_path)
    assert caught.value.code == "disk-too-small"
    _disk(recipe, b"x" * 16 * MEBIBYTE, tmp_path)
    files = read_files(read_span(tmp_path / "disk.img", spans(tmp_path / "disk.img")["esp"]))
    assert {name: len(content) for name, content in files.items()} == {
        "EFI/BOOT/BOOTX64.EFI": 16 * MEBIBYTE,
        "EFI/UMEC/STATE0.BIN": 512,
        "EFI/UMEC/STATE1.BIN": 512,
    }


def tree_root(data: bytes, salt: bytes) -> bytes:
    """The root hash by definition: hash blocks until one is left."""
    level = data
    while True:
        hashes = [hashlib.sha256(salt + level[at : at + BLOCK]).digest() for at in range(0, len(level), BLOCK)]
        if len(hashes) == 1:
            return hashes[0]
        level = b"".join(hashes)
        level += bytes(-len(level) % BLOCK)


def test_a_tree_of_three_levels_has_its_root_on_top(tmp_path):
    blocks = 128 * 128 + 1
    (tmp_path / "root").write_bytes(bytes(blocks * BLOCK))
    found = append_tree(tmp_path / "root", bytes(32))
    same = hashlib.sha256(bytes(32) + bytes(BLOCK)).digest()
    lowest = same * blocks + bytes(-32 * blocks % BLOCK)
    assert found.root_hash == tree_root(lowest, bytes(32))


@pytest.mark.parametrize("size", [1, BLOCK, BLOCK + 1, 128 * BLOCK, 129 * BLOCK])
def test_the_root_hash_is_that_of_the_tree(tmp_path, size):
    image, salt = tmp_path / "root", bytes(range(32))
    image.write_bytes(hashlib.shake_128(b"x").digest(size))
    data = image.read_bytes() + bytes(-size % BLOCK)
    found = append_tree(image, salt)
    assert found.root_hash == tree_root(data, salt)
    assert found.blocks == len(data) // BLOCK
    whole = image.read_bytes()
    assert whole[: len(data)] == data
    assert len(whole) % BLOCK == 0


def test_the_label_follows_the_data(tmp_path):
    (tmp_path / "root").write_bytes(b"data")
    found = append_tree(tmp_path / "root", bytes(32))
    superblock = (tmp_path / "root").read_bytes()[found.blocks * BLOCK :]
    assert superblock[:8] == b"verity\0\0"
    assert superblock[16:32] == found.label == found.root_hash[:16]


def test_one_bit_changes_the_root_hash_and_so_does_the_salt(tmp_path):
    roots = set()
    for data, salt in ((bytes(9000), bytes(32)), (b"\x01" + bytes(8999), bytes(32)), (bytes(9000), b"\x01" * 32)):
        (tmp_path / "root").write_bytes(data)
        roots.add(append_tree(tmp_path / "root", salt).root_hash)
    assert len(roots) == 3


def test_a_salt_of_another_length_is_refused(tmp_path):
    (tmp_path / "root").write_bytes(b"data")
    with pytest.raises(ValueError, match="32 bytes"):
        append_tree(tmp_path / "root", b"short")


def read_cpio(data: bytes) -> dict[str, tuple[int, int, bytes, tuple[int, int]]]:
    """Read an archive as a kernel does."""
    raw, place, found = gzip.decompress(data), 0, {}
    while True:
        assert raw[place : place + 6] == b"070701"
        fields = [int(raw[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        _, mode, _, _, _, moment, size, _, _, major, minor, name_size, _ = fields
        name = raw[place + 110 : place + 110 + name_size - 1].decode()
        start = place + -(-(110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, moment, raw[start : start + size], (major, minor))
        place = start + -(-size // 4) * 4


def test_an_archive_is_read_as_it_was_written():
    members = {"init": Member(cpio.PROGRAM, b"#!/bin/sh"), "dev/console": Member(cpio.DEVICE, device=(5, 1))}
    found = read_cpio(archive(members | {"bin/sh": Member(cpio.LINK, b"busybox")}, 7))
    assert found == {
        "bin": (0o040755, 7, b"", (0, 0)),
        "bin/sh": (0o120777, 7, b"busybox", (0, 0)),
        "dev": (0o040755, 7, b"", (0, 0)),
        "dev/console": (0o020600, 7, b"", (5, 1)),
        "init": (0o100755, 7, b"#!/bin/sh", (0, 0)),
    }
    assert list(found) == sorted(found)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?", fullmatch=True), st.binary(max_size=50), max_size=5))
def test_the_order_of_the_files_does_not_matter(files):
    members = {name: Member(cpio.FILE, content) for name, content in files.items()}
    assert archive(members, 1) == archive(dict(reversed(members.items())), 1)
