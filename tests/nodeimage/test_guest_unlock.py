"""The programs of a node that find its approval and its encrypted data, by BusyBox; device-mapper stays outside.

What is encrypted, opens and stays closed is tried in machines that boot (`tests/machine`), for it takes a kernel. Here:
what these programs never do to a disk, whoever wrote it.
"""

import json
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

GUEST = files("umec_images.nodeimage").joinpath("guest")
MEBIBYTE = 1024 * 1024
PATH = {"PATH": "/usr/bin:/bin"}
"""Without the folders of cryptsetup and mkfs: nothing can be made here."""


def replaced(program: str, places: dict[str, str]) -> str:
    """A program of the guest with other places than those of the guest."""
    text = GUEST.joinpath(program).read_text()
    for place, here in places.items():
        assert place in text
        text = text.replace(place, here)
    return text


class Partition:
    """A partition `data` in a file; the device-mapper is a copy of what would be mapped."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "vda4"
        for name in ("class/vda4", "run", "agent"):
            (folder / name).mkdir(parents=True)
        (folder / "class/vda4/size").write_text(str(8 * MEBIBYTE // 512))
        self.file.write_bytes(bytes(8 * MEBIBYTE))
        places = {
            "/sys/class/block": f"{folder}/class",
            "/dev/mapper": f"{folder}",
            "/dev/console": f"{folder}/console",
            "/run/umec-agent": f"{folder}/agent",
            "/run/umec/": f"{folder}/run/",
            "/run/disk.pid": f"{folder}/run/pid",
            "-c umec-agent ": "",
            "/usr/bin/python3": "/bin/false",
        }
        mapped = f'dmsetup() {{ tail -c +{MEBIBYTE + 1} "{self.file}" > "{folder}/$2"; }}\n'
        (folder / "unlock.sh").write_text(mapped + replaced("unlock.sh", places))

    def write(self, offset: int, data: bytes) -> None:
        with self.file.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def unlock(self) -> tuple[int, str, list[str]]:
        """Status, what would be mounted, and the codes that are said."""
        (self.folder / "console").write_bytes(b"")
        words = ["busybox", "sh", str(self.folder / "unlock.sh"), str(self.file)]
        done = subprocess.run(words, env=PATH, capture_output=True, text=True, check=False, timeout=60)
        lines = (self.folder / "console").read_text().splitlines()
        told = [line.removeprefix("umec-node: ") for line in lines if line.startswith("umec-node: {")]
        assert all(json.loads(line)["event"] == "data-closed" for line in told)
        return done.returncode, done.stdout, [json.loads(line)["code"] for line in told]


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    return Partition(tmp_path)


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (1024 + 56, b"\x53\xef"),  # an ext4, as an image without an owner has it
        (1024, b"\x01"),
        (MEBIBYTE, b"something"),
        (2 * MEBIBYTE - 1, b"\x01"),
    ],
)
def test_what_is_not_blank_is_not_made_anew(partition: Partition, offset: int, data: bytes) -> None:
    partition.write(offset, data)
    before = partition.file.read_bytes()
    assert partition.unlock() == (1, "", ["data-not-blank"])
    assert partition.file.read_bytes() == before


@pytest.mark.parametrize(("offset", "data"), [(0, b"LUKS\xba\xbe\0\2"), (0x4000, b"SKUL\xba\xbe\0\2")])
def test_what_was_encrypted_before_is_opened_or_stays_as_it_is(partition: Partition, offset: int, data: bytes) -> None:
    partition.write(MEBIBYTE + offset, data)
    before = partition.file.read_bytes()
    status, device, _ = partition.unlock()
    assert (status, device) == (1, "")
    assert partition.file.read_bytes() == before
    assert not (partition.folder / "run/data-header").exists()  # nothing was begun


def test_a_blank_partition_stays_blank_where_it_cannot_be_encrypted(partition: Partition) -> None:
    partition.write(0, b"eyJhIHRpY2tldA\n".ljust(1024, b"t"))  # the ticket does not count
    before = partition.file.read_bytes()
    status, device, codes = partition.unlock()
    assert (status, device) == (1, "")
    assert "data-not-blank" not in codes
    assert partition.file.read_bytes() == before
    assert (partition.folder / "run/data-header").stat().st_size == MEBIBYTE  # it was begun, in memory


def test_what_the_agent_has_said_is_not_said_again(partition: Partition) -> None:
    partition.write(MEBIBYTE, b"LUKS\xba\xbe\0\2")
    assert partition.unlock()[2] == []
    assert (partition.folder / "run/data-refused").exists()


@pytest.mark.parametrize("kept", [b'{"node": "pole-17"}\n', b"", b"no state\n"])
def test_a_node_whose_data_is_closed_still_knows_who_it_is(tmp_path: Path, kept: bytes) -> None:
    partition, state = tmp_path / "vda4", tmp_path / "state"
    partition.write_bytes(b"eyJhIHRpY2tldA\n".ljust(512 * 1024, b"\0") + kept.ljust(MEBIBYTE, b"\0"))
    (tmp_path / "class/vda4").mkdir(parents=True)
    (tmp_path / "class/vda4/uevent").write_text(f"DEVNAME={partition.name}\nPARTNAME=data\n")
    (tmp_path / "unlock").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unlock").chmod(0o755)
    (tmp_path / "owner.pem").touch()
    state.mkdir()
    places = {
        "/sys/class/block": f"{tmp_path}/class",
        "/dev/$(": f"{tmp_path}/$(",
        "/dev/console": f"{tmp_path}/console",
        "/etc/umec/owner.pem": f"{tmp_path}/owner.pem",
        "/usr/lib/umec/unlock": f"{tmp_path}/unlock",
    }
    (tmp_path / "data.sh").write_text("chown() { :; }\n" + replaced("data.sh", places))
    words = ["busybox", "sh", str(tmp_path / "data.sh"), str(state), str(tmp_path / "ticket")]
    done = subprocess.run(words, env=PATH, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert (tmp_path / "ticket").read_bytes() == b"eyJhIHRpY2tldA"
    found = {path.name: path.read_bytes() for path in state.iterdir()}
    assert found == ({"node.json": kept} if kept.startswith(b"{") else {})


@pytest.mark.parametrize("approval", [b'{"format": 1}\n', b"", b"x" * 16384])
def test_the_approval_of_the_running_slot_is_handed_on(tmp_path: Path, approval: bytes) -> None:
    for name, mapped in (("dm-0", "data"), ("dm-1", "root")):
        (tmp_path / f"class/{name}/dm").mkdir(parents=True)
        (tmp_path / f"class/{name}/dm/name").write_text(f"{mapped}\n")
    (tmp_path / "class/dm-0/slaves/vda4").mkdir(parents=True)
    (tmp_path / "class/dm-1/slaves/vda3").mkdir(parents=True)
    (tmp_path / "class/vda3").mkdir()
    (tmp_path / "class/vda3/size").write_text(f"{MEBIBYTE // 512}\n")
    (tmp_path / "vda3").write_bytes(b"a root file system".ljust(MEBIBYTE - 16384, b"r") + approval.ljust(16384, b"\0"))
    (tmp_path / "approval.sh").write_text(
        replaced("approval.sh", {"/sys/class/block": f"{tmp_path}/class", "/dev/$slot": f"{tmp_path}/$slot"})
    )
    words = ["busybox", "sh", str(tmp_path / "approval.sh"), str(tmp_path / "approval")]
    done = subprocess.run(words, env=PATH, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "approval").exists() == bool(approval)
    assert not approval or (tmp_path / "approval").read_bytes() == approval
