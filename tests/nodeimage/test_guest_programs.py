"""The programs in a node image that are shell, run by the shell that runs them there: BusyBox's."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

GUEST = files("umec_images.nodeimage").joinpath("guest")


def function(program: str, name: str) -> str:
    """The text of a function in one of the programs."""
    found = re.search(rf"^{name}\(\) \{{\n.*?^\}}\n", GUEST.joinpath(program).read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def shell(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["busybox", "sh", "-c", text], capture_output=True, text=True, check=False, timeout=60)


@contextlib.contextmanager
def process_named(name: str) -> Iterator[None]:
    """Another program that says that it is this one."""
    with subprocess.Popen([name, "infinity"], executable="/usr/bin/sleep", stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def test_a_process_with_the_name_of_the_agent_s_program_keeps_it_from_nothing(tmp_path: Path) -> None:
    start = function("init.sh", "as_agent")
    for place, here in (("/run/agent.pid", str(tmp_path / "pid")), ("-c umec-agent ", "")):
        assert place in start
        start = start.replace(place, here)
    program = "/usr/bin/printf"
    for _ in range(2):
        with process_named(program):
            done = shell(f"{start}\nas_agent {program} -- started")
        assert (done.returncode, done.stdout) == (0, "started"), done.stderr
        (tmp_path / "pid").write_text("1\n")  # whatever was there before is no reason


MEBIBYTE = 1024 * 1024


class Disk:
    """A partition `data` as the guest's program finds it, in a folder; what it would mount is written down."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.partition, self.ticket = folder, folder / "dev" / "vda4", folder / "ticket"
        for name in ("sys/vda4", "sys/vda3", "dev"):
            (folder / name).mkdir(parents=True)
        (folder / "sys/vda3/uevent").write_text("DEVNAME=vda3\nPARTNAME=root-b\n")
        (folder / "sys/vda4/uevent").write_text("DEVNAME=vda4\nPARTNAME=data\n")
        self.partition.write_bytes(bytes(8 * MEBIBYTE))
        program = GUEST.joinpath("data.sh").read_text()
        for place, here in (("/sys/class/block", "sys"), ("/dev/", "dev/")):
            assert place in program
            program = program.replace(place, f"{folder}/{here}")
        (folder / "data.sh").write_text(f'mount() {{ echo "$*" > {folder}/mounted; }}\n{program}')

    def write(self, data: bytes) -> None:
        with self.partition.open("r+b") as file:
            file.write(data)

    def open(self) -> None:
        words = ["busybox", "sh", str(self.folder / "data.sh"), str(self.folder / "mounted-here"), str(self.ticket)]
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(words, env=path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def number(self) -> str:
        """The file system's own."""
        words = ["/usr/sbin/blkid", "-p", "-s", "UUID", "-o", "value", str(self.partition)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_ticket_written_onto_the_partition_of_a_new_node_is_handed_on_at_each_boot(disk: Disk) -> None:
    disk.write(b"eyJhc3NldCI\n")
    disk.open()
    assert disk.ticket.read_bytes().strip() == b"eyJhc3NldCI"
    number = disk.number()
    assert number
    disk.ticket.unlink()
    disk.open()
    assert disk.ticket.read_bytes().strip() == b"eyJhc3NldCI"
    assert disk.number() == number


def test_a_ticket_written_onto_the_partition_of_an_old_node_leaves_its_files(disk: Disk) -> None:
    disk.open()
    assert not disk.ticket.exists()
    number = disk.number()
    for ticket in (b"eyJ" + b"a" * 900, b"eyJ" + b"b" * 300):  # the second leaves a piece of the first behind itself
        disk.write(ticket + b"\n")
        disk.open()
        assert disk.ticket.read_bytes() == ticket
    assert disk.number() == number


def test_data_is_mounted_so_that_little_can_come_of_it(disk: Disk) -> None:
    disk.open()
    options = (disk.folder / "mounted").read_text().split()[3].split(",")
    assert {"nosuid", "nodev", "noexec", "errors=remount-ro"} <= set(options)


def test_what_is_no_ticket_is_not_handed_on(disk: Disk) -> None:
    disk.write(b"\xeb\x58\x90" + b"MSDOS" * 300)
    disk.open()
    assert not disk.ticket.exists()
    assert disk.number()


def test_no_more_than_a_kibibyte_is_taken_for_a_ticket(disk: Disk) -> None:
    disk.write(b"eyJ" + b"a" * MEBIBYTE)
    disk.open()
    assert disk.ticket.stat().st_size == 1024
    assert disk.number()


def test_a_ticket_of_the_host_is_handed_on_as_far_as_one_is_long() -> None:
    [line] = [line for line in GUEST.joinpath("init.sh").read_text().splitlines() if "$ticket >" in line]
    assert "head -c 8193 $ticket" in line
