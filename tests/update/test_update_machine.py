"""What the keeper learns of its own machine: its disk, its firmware's variables, and whose signature counts there."""

import json
import os
import struct
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.agent.verdict_file import VerdictFile
from umec_images.update import EfiVariables, open_disk
from umec_images.update.device import _File
from umec_images.update.errors import DiskUnfit, UpdateError, VariablesUnusable, WriteFailed
from umec_images.update.firmware import SECURITY_DATABASE
from umec_images.update.node import find_disk, this_node
from umec_images.update.secureboot import Database, read_database
from umec_images.update.trial import Said, read_said

JSON = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["trusted", "true"])
    | st.lists(st.booleans(), max_size=1)
)


@pytest.fixture
def system(tmp_path):
    """A /sys with two disks of the same partitions: the root file system is read of the first."""
    for disk in ("vda", "sdb"):
        for number in (1, 2, 3):
            (tmp_path / f"devices/{disk}/{disk}{number}").mkdir(parents=True)
            (tmp_path / f"devices/{disk}/{disk}{number}/partition").write_text(f"{number}\n")
    for name, slave in (("data", "sdb3"), ("root", "vda2")):
        device = tmp_path / "class/block" / f"dm-{name}"
        (device / "dm").mkdir(parents=True)
        (device / "slaves").mkdir()
        (device / "dm/name").write_text(f"{name}\n")
        (device / "slaves" / slave).symlink_to(tmp_path / "devices" / slave[:3] / slave)
    return tmp_path


def test_the_disk_is_the_one_of_which_the_root_is_read(system):
    assert str(find_disk(system)) == "/dev/vda"
    command_line = system / "cmdline"
    command_line.write_text(f"ro roothash={'ab' * 32}\n")
    node = this_node(system, command_line)
    assert (str(node.disk), node.running) == ("/dev/vda", bytes.fromhex("ab" * 32))
    assert node.variables.folder == system / "firmware/efi/efivars"


@pytest.mark.parametrize("fault", ["no root", "two disks", "no partition"])
def test_a_machine_without_such_a_disk_is_refused(system, fault):
    root = system / "class/block/dm-root"
    if fault == "no root":
        (root / "dm/name").write_text("other\n")
    elif fault == "two disks":
        (root / "slaves/sdb2").symlink_to(system / "devices/sdb/sdb2")
    else:
        (system / "devices/vda/vda2/partition").unlink()
    with pytest.raises(DiskUnfit) as caught:
        find_disk(system)
    assert caught.value.code == "update-disk-unfit"


def test_a_variable_is_read_without_its_attributes(tmp_path):
    variables, path = EfiVariables(tmp_path), tmp_path / f"db-{SECURITY_DATABASE}"
    path.write_bytes(struct.pack("<I", 0x27) + b"value")
    assert variables.read("db", SECURITY_DATABASE) == b"value"
    for content in (b"", b"abc", bytes(64 * 1024 + 1)):
        path.write_bytes(content)
        with pytest.raises(VariablesUnusable) as caught:
            variables.read("db", SECURITY_DATABASE)
        assert caught.value.code == "firmware-variables-unusable"
    with pytest.raises(VariablesUnusable):
        variables.read("db")


def test_a_variable_that_may_not_be_changed_is_changed(tmp_path):
    variables = EfiVariables(tmp_path)
    path = tmp_path / "BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    for change in (lambda: variables.write("BootNext", b"\x45\x4d"), lambda: variables.remove("BootNext")):
        path.write_bytes(b"before")
        subprocess.run(["chattr", "+i", str(path)], check=True)
        with pytest.raises(PermissionError):
            path.write_bytes(b"x")
        change()
    assert not path.exists()


X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda head, size, more, each, rest: head + struct.pack("<III", size, more, each) + rest,
        st.sampled_from([X509, bytes(16)]),
        st.integers(0, 120),
        st.integers(0, 40),
        st.integers(0, 60),
        st.binary(max_size=120),
    )
)
def test_any_bytes_are_a_db_or_its_one_error(value):
    try:
        read_database(value)
    except UpdateError as error:
        assert error.code == "firmware-variables-unusable"  # noqa: PT017 - a value is as good


def test_a_db_of_hashes_has_no_certificate_and_one_without_an_end_is_refused():
    hashes = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le
    assert read_database(hashes + struct.pack("<III", 28 + 48, 0, 48) + bytes(48)) == Database((), 0)
    for value in (
        hashes + struct.pack("<III", 28 + 48, 0, 48) + bytes(47),
        hashes + struct.pack("<III", 28 + 48, 0, 47) + bytes(48),
        hashes + struct.pack("<III", 20, 0, 48) + bytes(48),
        hashes + struct.pack("<III", 28, 0, 16),
        hashes + struct.pack("<III", 0, 0, 28),
    ):
        with pytest.raises(VariablesUnusable):
            read_database(value)


def test_a_db_has_so_many_certificates_and_no_more():
    entry = X509 + struct.pack("<III", 28 + 17, 0, 17) + bytes(17)
    assert read_database(entry * 64) == Database((), 64)
    with pytest.raises(VariablesUnusable, match="more than 64") as caught:
        read_database(entry * 65)
    assert caught.value.code == "firmware-variables-unusable"


def test_a_disk_that_cannot_be_read_or_written_is_told_by_a_code(tmp_path):
    for path, writing in ((tmp_path / "none", False), (tmp_path, True), (Path("/proc/self/mem"), False)):
        with pytest.raises(DiskUnfit) as unfit, open_disk(path, writing=writing):
            pass
        assert unfit.value.code == "update-disk-unfit"
    reading, writing = os.pipe()
    full = os.open("/dev/full", os.O_RDWR)
    try:
        with pytest.raises(DiskUnfit, match="cannot be read at 512") as unread:
            _File(reading, 4096).read(512, 512)
        with pytest.raises(WriteFailed, match="cannot be written at 512") as unwritten:
            _File(full, 4096).write(512, b"x")
        with pytest.raises(WriteFailed, match="does not keep what was written: Invalid argument") as unkept:
            _File(writing, 4096).flush()
    finally:
        for descriptor in (reading, writing, full):
            os.close(descriptor)
    codes = [caught.value.code for caught in (unread, unwritten, unkept)]
    assert codes == ["update-disk-unfit", "update-write-failed", "update-write-failed"]
    (tmp_path / "disk").write_bytes(bytes(512))
    with open_disk(tmp_path / "disk", writing=True) as device:
        device.write(0, b"x" * 512)
        device.flush()
        assert device.read(0, 512) == b"x" * 512


def test_the_agent_writes_down_each_verdict_and_its_certificate_as_the_keeper_reads_them(tmp_path):
    verdicts, path = VerdictFile(tmp_path / "standing"), tmp_path / "standing"
    certificate = {"event": "certificate", "standing": "trusted", "generation": 3}
    verdicts.heard(certificate)
    assert read_said(path) is None
    for standing in ("untrusted", "trusted"):
        verdicts.heard({"event": "round", "standing": standing, "generation": 3, "version": 2, "at": "now"})
        assert read_said(path) == Said(standing, certificate=False)
    verdicts.heard(certificate | {"generation": 2})  # it came for an older verdict
    verdicts.heard({"event": "refused", "generation": 3, "certificate": True})
    assert read_said(path) == Said("trusted", certificate=False)
    verdicts.heard(certificate)
    assert read_said(path) == Said("trusted", certificate=True)
    assert json.loads(path.read_text()) == {
        "standing": "trusted",
        "generation": 3,
        "version": 2,
        "at": "now",
        "certificate": True,
    }
    for said in (True, False, None, 1):
        verdicts.heard({"event": "round", "standing": "trusted", "generation": 3, "certificate": said})
        assert read_said(path) == Said("trusted", certificate=said is True)


@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries({}, optional={"standing": JSON, "certificate": JSON}).map(
        lambda said: json.dumps(said).encode()
    )
)
def test_any_bytes_are_what_the_agent_says_or_nothing(written):
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(written)
        said = read_said(Path(file.name))
    if said is not None:
        assert said == Said(json.loads(written)["standing"], json.loads(written).get("certificate") is True)
