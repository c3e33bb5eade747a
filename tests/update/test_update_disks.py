"""What an update reads and changes of a node's disk, and disks that it does not touch."""

import binascii
import dataclasses
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_attest.testing.pe import make_pe
from umec_images.update import Phase, carry_out, confirm, open_disk, plan, read_kernel, settled, survey
from umec_images.update.device import Area
from umec_images.update.disk import BOOT, OTHER, STATES, note
from umec_images.update.errors import DiskBusy, DiskUnfit, NoRoom, SlotDamaged, TrialOpen, UpdateError, WriteFailed
from umec_images.update.esp import open_esp
from umec_images.update.kernel import command_line_root
from umec_images.update.layout import read_layout
from umec_images.update.slots import check_root, slot_of

MEBIBYTE = 1024 * 1024
BLOCK = 4096


def put(node, images, version):
    """Update, start, confirm."""
    carry_out(plan(node, images[version].image, None), node.firmware)
    node.start()
    return confirm(node, images[version].root_hash)


def test_an_update_is_tried_once_and_then_confirmed(node, images):
    carry_out(plan(node, images[2].image, None), node.firmware)
    assert survey(node).record.phase is Phase.TRIAL
    assert [node.start().version for _ in range(2)] == [2, 1]
    assert settled(node, images[1].root_hash)[1].value == "fell-back"
    carry_out(plan(node, images[2].image, None, again=True), node.firmware)
    assert node.start().version == 2
    seen, outcome = settled(node, images[2].root_hash)
    assert (outcome.value, seen.confirmed.version, seen.slot) == ("on-trial", 1, "root-a")
    seen = confirm(node, images[2].root_hash)
    assert (seen.confirmed.version, seen.slot, seen.other.version, seen.free) == (2, "root-b", 1, "root-a")
    assert [node.start().version for _ in range(2)] == [2, 2]
    assert settled(node, images[2].root_hash)[1].value == "nothing"


def test_what_falls_back_keeps_its_slot_until_the_next_one_is_confirmed(node, images):
    before = bytes(survey(node).layout.roots["root-a"].area.read(0, MEBIBYTE))
    carry_out(plan(node, images[2].image, None), node.firmware)
    carry_out(plan(node, images[3].image, None), node.firmware)
    assert survey(node).layout.roots["root-a"].area.read(0, MEBIBYTE) == before
    assert node.start().version == 3
    with pytest.raises(TrialOpen) as caught:
        plan(node, images[4].image, images[3].root_hash)
    assert caught.value.code == "update-trial-open"


def test_updates_follow_each_other_in_both_slots(node, images):
    assert [put(node, images, version).slot for version in (2, 3, 4)] == ["root-b", "root-a", "root-b"]


def test_an_image_is_staged_alone_and_tried_later(node, images):
    assert carry_out(plan(node, images[2].image, None), None).phase is Phase.STAGED
    assert node.start().version == 1
    planned = plan(node, images[2].image, None)
    assert planned.phase is Phase.STAGED
    assert carry_out(planned, node.firmware).phase is Phase.TRIAL
    assert node.start().version == 2


def test_what_is_staged_and_damaged_is_written_again(node, images):
    carry_out(plan(node, images[2].image, None), None)
    survey(node).target.write(0, bytes(512))
    planned = plan(node, images[2].image, None)
    assert planned.phase is Phase.WRITING
    carry_out(planned, node.firmware)
    assert node.start().version == 2


def test_what_the_firmware_was_asked_for_is_not_written_over_without_it(node, images):
    carry_out(plan(node, images[2].image, None), node.firmware)
    with pytest.raises(TrialOpen, match="has been asked") as caught:
        carry_out(plan(node, images[3].image, None), None)
    assert caught.value.code == "update-trial-open"
    assert node.start().version == 2


def test_a_plan_writes_nothing(node, images):
    before = bytes(node.data)
    plan(node, images[2].image, None)
    assert bytes(node.data) == before
    assert node.operations == 0


def test_a_node_whose_own_root_is_damaged_is_not_updated(node, images):
    area = survey(node).layout.roots["root-a"].area
    kept = area.read(8 * BLOCK, 512)
    area.write(8 * BLOCK, bytes(512))
    with pytest.raises(SlotDamaged, match="version 1 is damaged") as caught:
        plan(node, images[2].image, None)
    assert caught.value.code == "update-slot-damaged"
    area.write(8 * BLOCK, kept)
    plan(node, images[2].image, None)


@pytest.mark.parametrize("level", [130, 131], ids=["upper", "lower"])
def test_a_damaged_hash_tree_is_damage(node, images, level):
    put(node, images, 4)  # 129 blocks: a tree of two levels
    seen = survey(node)
    area = seen.layout.roots["root-b"].area
    check_root(area, seen.confirmed)
    area.write(level * BLOCK, bytes(512))
    with pytest.raises(SlotDamaged, match="is damaged") as caught:
        check_root(area, seen.confirmed)
    assert caught.value.code == "update-slot-damaged"


def test_a_root_of_which_only_the_label_is_right_is_damage(node):
    seen = survey(node)
    area = seen.layout.roots["root-a"].area
    check_root(area, seen.confirmed)
    with pytest.raises(SlotDamaged, match="is damaged") as caught:
        check_root(area, dataclasses.replace(seen.confirmed, root_hash=seen.confirmed.label + bytes(16)))
    assert caught.value.code == "update-slot-damaged"


def test_a_slot_without_the_label_holds_nothing(node):
    seen = survey(node)
    assert slot_of(seen.layout, seen.confirmed) == "root-a"
    assert slot_of(seen.layout, dataclasses.replace(seen.confirmed, blocks=256)) is None  # it would be behind the slot
    with pytest.raises(SlotDamaged, match="does not hold") as caught:
        check_root(seen.target, seen.confirmed)
    assert caught.value.code == "update-slot-damaged"


def test_a_disk_without_its_root_is_refused(node):
    area = survey(node).layout.roots["root-a"].area
    area.write(40 * BLOCK, bytes(512))
    with pytest.raises(SlotDamaged, match="no slot holds") as caught:
        survey(node)
    assert caught.value.code == "update-slot-damaged"


def test_an_image_that_is_damaged_after_its_trial_is_not_confirmed(node, images):
    carry_out(plan(node, images[2].image, None), node.firmware)
    assert node.start().version == 2
    target = survey(node).target
    kept = target.read(8 * BLOCK, 512)
    target.write(8 * BLOCK, bytes(512))
    with pytest.raises(SlotDamaged) as caught:
        confirm(node, images[2].root_hash)
    assert caught.value.code == "update-slot-damaged"
    assert node.start().version == 1
    target.write(8 * BLOCK, kept)
    confirm(node, images[2].root_hash)
    assert node.start().version == 2


@pytest.mark.parametrize("where", ["root-b", "esp"])
def test_a_disk_that_loses_what_is_written_is_noticed(node, images, monkeypatch, where):
    layout, write = survey(node).layout, node.write
    area = layout.esp.area if where == "esp" else layout.roots[where].area
    begin = area.start + (open_esp(area).data_start if where == "esp" else 0)

    def lossy(offset, data):
        inside = begin <= offset < area.start + area.size and len(data) > 8192
        write(offset, data[:8192] + bytes(512) + data[8704:] if inside else data)

    monkeypatch.setattr(node, "write", lossy)
    with pytest.raises(WriteFailed) as caught:
        carry_out(plan(node, images[2].image, None), node.firmware)
    assert caught.value.code == "update-write-failed"
    assert node.variables == {}
    assert OTHER not in node.files()
    monkeypatch.undo()
    carry_out(plan(node, images[2].image, None), node.firmware)
    assert node.start().version == 2


def test_a_root_that_does_not_fit_is_refused(node, image_maker):
    for blocks, fits in ((252, True), (253, False)):  # 1 MiB has 256: data, label, tree of two levels
        made = image_maker(f"b{blocks}", 9, blocks=blocks)
        if fits:
            plan(node, made.image, None)
        else:
            with pytest.raises(NoRoom, match="the slot 1048576") as caught:
                plan(node, made.image, None)
            assert caught.value.code == "update-no-room"


def test_a_kernel_image_that_does_not_fit_is_refused(node, image_maker):
    with pytest.raises(NoRoom, match="EFI partition room") as caught:
        plan(node, image_maker("large", 9, kernel=34 * MEBIBYTE).image, None)
    assert caught.value.code == "update-no-room"
    with pytest.raises(NoRoom, match="do not fit") as caught:
        survey(node).esp.store(bytes(34 * MEBIBYTE))
    assert caught.value.code == "update-no-room"


def test_clusters_need_not_follow_each_other(node, images, image_maker):
    """The room of the first image, and what is behind the second one."""
    put(node, images, 2)
    carry_out(plan(node, image_maker("large", 9, kernel=300_000).image, None), node.firmware)
    assert node.start().version == 9
    clusters = survey(node).esp.files[OTHER].clusters
    assert any(second != first + 1 for first, second in pairwise(clusters))


# --- the partition table


def changed(node, offset, data, *, header=True):
    """Change the first partition table, with checksums that hold."""
    node.data[offset : offset + len(data)] = data
    if header:
        entries = binascii.crc32(node.data[1024 : 1024 + 128 * 128])
        head = bytearray(node.data[512 : 512 + 92])
        struct.pack_into("<I", head, 88, entries)
        struct.pack_into("<I", head, 16, 0)
        struct.pack_into("<I", head, 16, binascii.crc32(bytes(head)))
        node.data[512 : 512 + 92] = bytes(head)


NAME = 1024 + 56


@pytest.mark.parametrize(
    ("offset", "data", "header", "match"),
    [
        (512, b"X", True, "no GUID"),
        (512 + 12, b"\x5d", True, "no GUID"),
        (512 + 56, b"X", False, "no GUID"),
        (NAME, b"X", False, "entries"),
        (NAME, b"X", True, "no partition esp"),
        (NAME + 128, b"X", True, "no partition root-a"),
        (NAME + 3 * 128, "root-b".encode("utf-16-le") + b"\0\0", True, "two partitions"),
        (1024 + 40, b"\xff\xff\xff", True, "beyond the end"),
        (1024 + 32, bytes(8), True, "beyond the end"),
        (1024 + 40, struct.pack("<Q", 5), True, "beyond the end"),
        (512 + 80, struct.pack("<I", 129), True, "129 entries"),
        (512 + 80, struct.pack("<I", 0), True, "0 entries"),
        (512 + 84, struct.pack("<I", 256), True, "256 bytes"),
        (512 + 72, struct.pack("<Q", 2**40), True, "no partition table that is read"),
    ],
)
def test_a_partition_table_that_is_not_ours_is_refused(node, offset, data, header, match):
    read_layout(node)
    changed(node, offset, data, header=header)
    with pytest.raises(DiskUnfit, match=match) as caught:
        read_layout(node)
    assert caught.value.code == "update-disk-unfit"


def test_a_disk_of_nothing_is_refused(tmp_path):
    for size in (0, 600, 4096):
        (tmp_path / "disk").write_bytes(bytes(size))
        with open_disk(tmp_path / "disk", writing=False) as device, pytest.raises(DiskUnfit, match="no GUID"):
            survey(device)


# --- the EFI partition


def esp_of(node):
    return read_layout(node).esp.area


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (510, b"\0"),
        (11, b"\0\x10"),
        (13, b"\0"),
        (16, b"\x01"),
        (36, b"\xff\xff\xff"),
        (36, bytes(4)),
        (44, b"\x01\0\0\0"),
        (44, b"\xff\xff\xff\0"),
    ],
    ids=["mark", "sector", "cluster", "one table", "long table", "no table", "root", "root beyond"],
)
def test_a_file_system_that_is_not_ours_is_refused(node, offset, data):
    area = esp_of(node)
    open_esp(area)
    node.data[area.start + offset : area.start + offset + len(data)] = data
    with pytest.raises(DiskUnfit) as caught:
        open_esp(area)
    assert caught.value.code == "update-disk-unfit"


def entry_of(node, path):
    area = esp_of(node)
    return area.start + open_esp(area).files[path].entry


def test_a_file_without_its_clusters_is_refused(node):
    at = entry_of(node, BOOT)
    node.data[at + 28 : at + 32] = struct.pack("<I", 2**20)
    with pytest.raises(DiskUnfit, match="longer than"):
        survey(node)


def test_a_chain_in_a_circle_is_refused(node):
    esp = survey(node).esp
    first, *_, last = esp.files[BOOT].clusters
    at = esp.area.start + esp.table_start + 4 * last
    node.data[at : at + 4] = struct.pack("<I", first)
    with pytest.raises(DiskUnfit, match="leads nowhere"):
        survey(node)


def test_a_folder_in_itself_is_refused(node):
    esp = survey(node).esp
    boot = esp.area.start + esp.data_start + (esp.folders["EFI/BOOT"][0] - 2) * 512
    node.data[boot + 3 * 32 : boot + 4 * 32] = (
        b"AGAIN      \x10" + bytes(14) + struct.pack("<HI", esp.folders[""][0], 0)
    )
    with pytest.raises(DiskUnfit, match="without an end"):
        survey(node)


def test_two_files_of_one_name_are_refused(node):
    at = entry_of(node, BOOT)
    node.data[at + 32 : at + 64] = node.data[at : at + 32]
    with pytest.raises(DiskUnfit, match="two files"):
        survey(node)


def test_two_folders_of_one_name_are_refused(node):
    esp = survey(node).esp
    at = esp.area.start + esp.data_start + (esp.folders["EFI"][0] - 2) * 512
    node.data[at + 4 * 32 : at + 5 * 32] = node.data[at + 2 * 32 : at + 3 * 32]
    with pytest.raises(DiskUnfit, match=r"two files EFI/BOOT$"):
        survey(node)


def test_sectors_of_another_size_are_refused(node):
    area = esp_of(node)
    node.data[area.start + 11 : area.start + 13] = b"\0\x10"
    with pytest.raises(DiskUnfit, match="that is changed here"):
        open_esp(area)


def test_many_files_are_refused(node):
    esp = survey(node).esp
    taken = next(number for number in range(2, esp.count) if not esp.table[4 * number : 4 * number + 4].strip(b"\0"))
    chain = range(taken, taken + 20)
    for number, following in zip(chain, [*chain[1:], 0x0FFFFFFF], strict=True):
        at = esp.area.start + esp.table_start + 4 * number
        node.data[at : at + 4] = struct.pack("<I", following)
        for place in range(16):
            entry = f"{number:04X}{place:04X}   ".encode() + bytes(21)
            where = esp.area.start + esp.data_start + (number - 2) * 512 + place * 32
            node.data[where : where + 32] = entry
    root = esp.area.start + esp.table_start + 4 * esp.folders[""][0]
    node.data[root : root + 4] = struct.pack("<I", taken)
    top = esp.area.start + esp.data_start
    for place in range(2, 16):
        node.data[top + place * 32 : top + place * 32 + 32] = f"TOP{place:02d}      ".encode() + bytes(21)
    with pytest.raises(DiskUnfit, match="more than 256"):
        survey(node)


def test_a_disk_from_before_updates_is_refused(node):
    for path in (STATES[0], BOOT):
        at = entry_of(node, path)
        kept = node.data[at]
        node.data[at] = 0xE5
        with pytest.raises(DiskUnfit, match=path) as caught:
            survey(node)
        assert caught.value.code == "update-disk-unfit"
        node.data[at] = kept
    survey(node)


def test_a_state_that_is_not_one_sector_is_refused(node):
    at = entry_of(node, STATES[0])
    node.data[at + 28 : at + 32] = struct.pack("<I", 511)
    with pytest.raises(DiskUnfit, match="not one sector"):
        note(survey(node), Phase.NONE)


def test_both_kernel_images_are_in_one_sector_or_nothing_is_swapped(node, images):
    carry_out(plan(node, images[2].image, None), node.firmware)
    esp = survey(node).esp
    with pytest.raises(DiskUnfit, match="one sector"):
        esp.swap(BOOT, STATES[0])
    with pytest.raises(DiskUnfit, match="has no EFI/NOWHERE"):
        esp.swap(BOOT, "EFI/NOWHERE")
    with pytest.raises(DiskUnfit, match="no room"):
        esp.add(OTHER, BOOT, (9,), 1)


def test_a_full_sector_takes_no_file_more(node):
    esp = survey(node).esp
    for number in range(13):
        esp.add(f"EFI/BOOT/F{number}", BOOT, (9,), 0)
    with pytest.raises(DiskUnfit, match="no room"):
        esp.add("EFI/BOOT/F13", BOOT, (9,), 0)


def test_what_others_put_beside_it_stays(node, images):
    """A file that nobody knows keeps its clusters and their entries."""
    esp = survey(node).esp
    clusters = esp.store(b"a file of somebody" * 100)
    esp.add("EFI/BOOT/SHELL.EFI", BOOT, clusters, 1800)
    for version in (2, 3, 4):
        put(node, images, version)
    assert node.files()["EFI/BOOT/SHELL.EFI"] == b"a file of somebody" * 100


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_efi_partition_is_read_or_refused(first_node, changes):
    """Boot sector, first sectors of the table, top folder, folder of the kernel images."""
    area = esp_of(first_node)
    good = open_esp(area)
    places = [0, good.table_start, good.data_start, good.data_start + 512 * (good.folders["EFI/BOOT"][0] - 2)]
    kept = {place: area.read(place, 512) for place in places}
    for which, offset, value in changes:
        first_node.data[area.start + places[which] + offset] = value
    try:
        open_esp(area)
    except UpdateError as error:
        assert error.code == "update-disk-unfit"  # noqa: PT017 - it may as well be read
    for place, data in kept.items():
        area.write(place, data)


# --- kernel images

WORDS = f"ro umec.version=3 roothash={'ab' * 32} umec.verity=40:{'cd' * 32}"


def kernel_of(words=WORDS, release="IMAGE_ID=lamp\n", **further):
    return make_pe({".osrel": release.encode(), ".cmdline": words.encode(), ".linux": b"linux", **further})


def test_a_kernel_image_says_what_it_is():
    found = read_kernel(kernel_of(f"{WORDS} quiet console=ttyS0\0"))
    assert (found.name, found.version, found.root_hash, found.blocks) == ("lamp", 3, b"\xab" * 32, 40)
    assert (found.salt, found.label) == (b"\xcd" * 32, b"\xab" * 16)


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"MZ" + bytes(200),
        kernel_of()[:600],
        kernel_of(WORDS.replace("umec.version=3", "")),
        kernel_of(WORDS.replace("umec.version=3", "umec.version=03")),
        kernel_of(WORDS.replace("roothash=ab", "roothash=AB")),
        kernel_of(WORDS.replace("=40:", "=0:")),
        kernel_of(WORDS + " umec.version=4"),
        kernel_of(WORDS + f" roothash={'ef' * 32}"),
        kernel_of(release="ID=umec\n"),
        kernel_of(release="IMAGE_ID=Lamp\n"),
        make_pe({".osrel": b"IMAGE_ID=lamp\n"}),
    ],
)
def test_a_kernel_image_that_does_not_is_refused(image):
    with pytest.raises(DiskUnfit) as caught:
        read_kernel(image)
    assert caught.value.code == "update-disk-unfit"


def test_two_sections_of_one_name_are_refused():
    image = kernel_of(**{".cmdlinX": WORDS.replace("=3", "=9").encode()})
    assert read_kernel(image).version == 3
    with pytest.raises(DiskUnfit, match="two sections"):
        read_kernel(image.replace(b".cmdlinX", b".cmdline"))


def test_many_sections_are_refused():
    image = bytearray(kernel_of())
    struct.pack_into("<H", image, struct.unpack_from("<I", image, 0x3C)[0] + 6, 97)
    with pytest.raises(DiskUnfit, match="97 sections"):
        read_kernel(bytes(image))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 1535), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_bytes_are_a_kernel_image_or_refused(changes):
    image = bytearray(kernel_of())
    for place, value in changes:
        image[place] = value
    try:
        read_kernel(bytes(image))
    except DiskUnfit as error:
        assert error.code == "update-disk-unfit"  # noqa: PT017 - it may as well be read


def test_the_root_of_what_runs_is_on_its_command_line():
    assert command_line_root(WORDS + "\n") == b"\xab" * 32
    for text in ("", "roothash=ab", WORDS + f" roothash={'ef' * 32}"):
        with pytest.raises(DiskUnfit) as caught:
            command_line_root(text)
        assert caught.value.code == "update-disk-unfit"


# --- files and partitions


def test_one_at_a_time_writes(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(1024))
    with open_disk(tmp_path / "disk", writing=True):
        for writing in (True, False):
            with pytest.raises(DiskBusy) as caught, open_disk(tmp_path / "disk", writing=writing):
                pass
            assert caught.value.code == "update-disk-busy"
    with open_disk(tmp_path / "disk", writing=False), open_disk(tmp_path / "disk", writing=False) as device:
        assert device.size == 1024


def test_nothing_is_read_or_written_beyond_an_end(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(1024))
    with open_disk(tmp_path / "disk", writing=True) as device:
        area = Area(device, 512, 512)
        area.write(0, b"x" * 512)
        device.flush()
        assert area.read(511, 1) == b"x"
        for attempt in (
            lambda: area.read(511, 2),
            lambda: area.read(-1, 1),
            lambda: area.write(1, bytes(512)),
            lambda: Area(device, 0, 512).write(1, bytes(512)),
            lambda: device.read(1000, 100),
            lambda: device.write(1000, bytes(100)),
        ):
            with pytest.raises(DiskUnfit):
                attempt()
    assert (tmp_path / "disk").stat().st_size == 1024
