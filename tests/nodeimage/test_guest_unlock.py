"""The programs of a node that find its approval and its encrypted data, by BusyBox and with a TPM that really seals.

Device-mapper stays outside: what encrypts is a file of its own here, and how it is asked for is looked at. What the
kernel makes of that is tried in machines that boot (`tests/machine`). Here: what these programs do to a disk, whoever
wrote it and wherever the power ends, and what they never do.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.sealing import counter_value
from umec_attest.sealed import sign_approval
from umec_attest.testing.swtpm import SoftwareTpm

GUEST = files("umec_images.nodeimage").joinpath("guest")
KIBIBYTE, MEBIBYTE = 1024, 1024 * 1024
SIZE, HEAD = 8 * MEBIBYTE, 4 * MEBIBYTE
TOKEN, DATA, MARK = 64 * KIBIBYTE, MEBIBYTE, SIZE - 4096
"""Where they lie on the partition, of which so much has to be blank here: on a node it is more."""
MARKED = b"umec-node-is-making-this"
TICKET = b"eyJhIHRpY2tldA"
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

AROUND = """
step() {  # a program that changes the disk; the power ends before number CUT of them, or within it
  echo "$*" >> FOLDER/steps
  [ "$(wc -l < FOLDER/steps)" = "${CUT:-0}" ] || return 0
  case ${TORN:-}$1 in torndd) busybox "$@" count=1 ;; esac
  kill -9 0
}
dmsetup() {
  case $1-$2 in
    create-data) cat > FOLDER/table; [ -e FOLDER/data ] || truncate -s 8M FOLDER/data ;;
    *) echo "$*" >> FOLDER/mapped ;;
  esac
}
dd() { case $* in *of=*) step dd "$@" ;; esac; busybox dd "$@"; }
mount() { echo "$*" > FOLDER/mounted; }
chown() { :; }
sync() { :; }
"""
AGENT = """#!/bin/busybox sh
case $4 in
  seal) printf '%s\\n' KEY 'TOKEN' ;;
  open) [ "$(head -c 32768 | tr -d '\\000')" = 'TOKEN' ] || CLOSED; echo KEY ;;
esac
""".replace("KEY", 64 * "5a").replace("TOKEN", '{"type": "umec-data", "sealed": "%s"}' % (600 * "a"))
CLOSED = '{ echo \'umec-node: {"event": "data-closed", "code": "CODE"}\' >&2; exit 1; }'
"""What the agent's program does in a state that the owner approved; it is tried by itself, and once here."""
STEP = AROUND.partition("dmsetup()")[0]
MKFS = f"""#!/bin/busybox sh
{STEP}
step mkfs
for each; do [ ! -f "$each" ] || echo torn | busybox dd of="$each" bs=4096 seek=3 conv=notrunc 2> /dev/null; done
step torn
exec /usr/sbin/mkfs.ext4 "$@"
"""


@dataclass(frozen=True)
class Said:
    """How a program ended: its status, what it printed, and the codes that it said on the console."""

    status: int
    printed: str
    codes: list[str]


class Node:
    """A node with a partition `data` in a file, on the disk of its root file system."""

    def __init__(self, folder: Path, *, owned: bool = False) -> None:
        self.folder = folder
        for name in (
            "block/vda/vda3",
            "block/vda/vda4",
            "class/dm-0/dm",
            "class/dm-0/slaves/vda3",
            "run",
            "bin",
            "lib",
        ):
            (folder / name).mkdir(parents=True)
        (folder / "class/dm-0/dm/name").write_text("root\n")
        for name, label in (("vda3", "root-a"), ("vda4", "data")):
            self.add_partition("vda", name, label)
        self.partition = folder / "vda4"
        self.places = {
            "/sys/class/block": f"{folder}/class",
            "/dev/mapper": f"{folder}",
            "/dev/console": f"{folder}/console",
            "/dev/$(": f"{folder}/$(",
            "/run/umec/": f"{folder}/run/",
            "/run/disk.pid": f"{folder}/run/pid",
            "/etc/umec/owner.pem": f"{folder}/owner.pem",
            "-c umec-agent ": "",
            "/usr/bin/python3": f"{folder}/python3",
            "/usr/lib/umec/": f"{folder}/lib/",
            "HEAD=4096 ": f"HEAD={HEAD // 4096} ",
        }
        for name in ("making", "unlock", "data"):
            text = GUEST.joinpath(f"{name}.sh").read_text()
            for place, here in self.places.items():
                text = text.replace(place, here)
            around = AROUND.replace("FOLDER", str(folder)) if name == "making" else ""
            (folder / "lib" / name).write_text(around + text)
            (folder / "lib" / name).chmod(0o755)
        (folder / "bin/mkfs.ext4").write_text(MKFS.replace("FOLDER", str(folder)))
        (folder / "bin/mkfs.ext4").chmod(0o755)
        if owned:
            self.own()

    def add_partition(self, disk: str, name: str, label: str) -> None:
        place = self.folder / "block" / disk / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "uevent").write_text(f"DEVNAME={name}\nPARTNAME={label}\n")
        (place / "size").write_text(f"{SIZE // 512}\n")
        (self.folder / "class" / name).symlink_to(place)
        (self.folder / name).write_bytes(bytes(SIZE))

    def own(self) -> None:
        """Let it run an image that has an owner."""
        (self.folder / "owner.pem").touch()
        self.agent(AGENT.replace("CLOSED", CLOSED.replace("CODE", "data-token-invalid")))

    def agent(self, program: str) -> None:
        (self.folder / "python3").write_text(program)
        (self.folder / "python3").chmod(0o755)

    def write(self, offset: int, data: bytes) -> None:
        with self.partition.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def read(self, offset: int, size: int) -> bytes:
        return self.partition.read_bytes()[offset : offset + size]

    def unlock(self, **more: str) -> Said:
        return self._run("unlock", str(self.partition), **more)

    def start(self, **more: str) -> Said:
        """Run what mounts the data; it may end before."""
        (self.folder / "mounted").unlink(missing_ok=True)
        return self._run("data", str(self.folder / "state"), str(self.folder / "ticket"), **more)

    @property
    def mounted(self) -> str | None:
        """What was mounted, if something was."""
        found = self.folder / "mounted"
        return found.read_text().split()[-2] if found.exists() else None

    @property
    def changes(self) -> list[str]:
        """What changed the disk, in its order."""
        steps = self.folder / "steps"
        return steps.read_text().splitlines() if steps.exists() else []

    def _run(self, program: str, *words: str, **more: str) -> Said:
        (self.folder / "steps").unlink(missing_ok=True)
        (self.folder / "console").write_bytes(b"")
        line = ["busybox", "sh", str(self.folder / "lib" / program), *words]
        done = subprocess.run(  # in a session of its own: the power ends for all of it
            line,
            env={"PATH": f"{self.folder}/bin:{PATH['PATH']}"} | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            start_new_session=True,
        )
        lines = (self.folder / "console").read_text().splitlines()
        told = [json.loads(text.removeprefix("umec-node: ")) for text in lines if text.startswith("umec-node: {")]
        assert all(each["event"] in {"data-closed", "data-opened"} for each in told)
        return Said(done.returncode, done.stdout, [each["code"] for each in told if "code" in each])


def replaced(program: str, places: dict[str, str]) -> str:
    """A program of the guest with other places than those of the guest."""
    text = GUEST.joinpath(program).read_text()
    for place, here in places.items():
        assert place in text
        text = text.replace(place, here)
    return text


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose image has no owner."""
    return Node(tmp_path)


@pytest.fixture
def owned(tmp_path: Path) -> Node:
    return Node(tmp_path, owned=True)


def real_agent(node: Node, tpm: SoftwareTpm) -> None:
    """Have the agent's own program seal and open, in an approved state."""
    key = ec.generate_private_key(ec.SECP256R1())
    with Tpm(tpm.tcti) as opened:
        pcrs, version = opened.read_pcrs([4, 7]), opened.do(counter_value)
    subject = PublicFormat.SubjectPublicKeyInfo
    (node.folder / "owner.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, subject))
    (node.folder / "release").write_text("IMAGE_ID=lamp\n")
    (node.folder / "approval").write_bytes(sign_approval(image="lamp", version=version, pcrs=pcrs, key=key))
    places = " ".join(f"--{name} {node.folder}/{name}" for name in ("release", "approval"))
    words = f"--owner {node.folder}/owner.pem --tcti {tpm.tcti} {places}"
    node.agent(f'#!/bin/sh\nshift 3\nexec {sys.executable} -I -m umec_attest.agent.disk {words} "$@"\n')


# --- what is made -------------------------------------------------------------------------------------------------


def test_a_blank_partition_is_encrypted_and_opens_with_the_same_key(owned: Node) -> None:
    owned.write(0, TICKET + b"\n")
    with SoftwareTpm() as tpm:
        real_agent(owned, tpm)
        is_encrypted_and_opens_with_the_same_key(owned)
    other = owned.partition.read_bytes()
    with SoftwareTpm() as thief:
        real_agent(owned, thief)
        assert owned.start() == Said(1, "", ["approval-signature"])  # of the key that was its owner then
    assert owned.partition.read_bytes() == other


def is_encrypted_and_opens_with_the_same_key(owned: Node) -> None:
    made = owned.unlock()
    assert made == Said(0, f"{owned.folder}/data\n", [])
    table = (owned.folder / "table").read_text()
    start, size, kind, cipher, key, first, device, offset, *options = table.split()
    assert (start, kind, cipher, first) == ("0", "crypt", "aes-xts-plain64", "0")
    assert (device, offset, options) == (str(owned.partition), str(DATA // 512), ["1", "sector_size:4096"])
    assert DATA + int(size) * 512 == MARK  # what holds the mark belongs to nobody
    assert len(bytes.fromhex(key)) == 64
    before = owned.partition.read_bytes()
    assert before.startswith(TICKET)
    assert json.loads(before[TOKEN : TOKEN + 32 * KIBIBYTE].rstrip(b"\0"))["type"] == "umec-data"
    assert (before[MARK:], bytes.fromhex(key) in before) == (bytes(4096), False)
    assert owned.unlock() == made
    assert (owned.folder / "table").read_text() == table
    assert owned.changes == []
    assert owned.partition.read_bytes() == before


def test_the_key_is_in_no_file_and_on_no_command_line(owned: Node) -> None:
    owned.unlock()
    key = (owned.folder / "table").read_text().split()[4]
    for name in ("table", "python3"):  # of which the one is the kernel, and the other the TPM
        (owned.folder / name).unlink()
    assert not [path for path in owned.folder.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


def test_an_image_without_an_owner_makes_a_file_system_of_its_own(node: Node) -> None:
    node.write(0, TICKET + b"\n")
    assert node.start() == Said(0, "", [])
    assert node.mounted == str(node.partition)
    before = node.partition.read_bytes()
    assert (before[: len(TICKET)], before[1080:1082], before[MARK:]) == (TICKET, b"\x53\xef", bytes(4096))
    blocks, log = (int.from_bytes(before[1024 + at :][:4], "little") for at in (4, 24))
    assert blocks * 1024 << log <= MARK  # what holds the mark belongs to nobody
    subprocess.run(["/usr/sbin/e2fsck", "-fn", str(node.partition)], check=True, capture_output=True)
    assert node.start().status == 0
    assert node.partition.read_bytes() == before


@pytest.mark.parametrize("torn", ["", "torn"])
@pytest.mark.parametrize("cut", range(1, 8))
def test_a_power_cut_while_it_is_encrypted_leaves_a_blank_one_or_a_made_one(owned: Node, cut: int, torn: str) -> None:
    owned.write(0, TICKET + b"\n")
    ended = owned.unlock(CUT=str(cut), TORN=torn)
    steps = len(owned.changes)
    if ended.status == 0:
        assert steps < cut  # it was done before
        return
    begun = owned.read(TOKEN, 512) != bytes(512)
    first = (owned.folder / "table").read_text() if begun else ""
    assert owned.unlock() == Said(0, f"{owned.folder}/data\n", [])
    assert owned.read(MARK, 4096) == bytes(4096)
    made = any(line.startswith("mkfs") for line in owned.changes)
    assert made != begun
    assert not begun or (owned.folder / "table").read_text() == first
    subprocess.run(["/usr/sbin/e2fsck", "-fn", str(owned.folder / "data")], check=True, capture_output=True)


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_power_cut_while_a_file_system_is_made_leaves_none_or_a_whole_one(node: Node, cut: int) -> None:
    if node.start(CUT=str(cut)).status == 0:
        assert len(node.changes) < cut
        return
    assert node.start() == Said(0, "", [])
    assert node.mounted == str(node.partition)
    assert node.read(MARK, 4096) == bytes(4096)
    subprocess.run(["/usr/sbin/e2fsck", "-fn", str(node.partition)], check=True, capture_output=True)


# --- what is not made ---------------------------------------------------------------------------------------------

SOMETHING = [
    pytest.param(0, b"\xeb\x58\x90MSDOS", id="boot sector"),
    pytest.param(3, b"\x01", id="no ticket"),
    pytest.param(1024, b"\x01", id="behind the ticket"),
    pytest.param(TOKEN + 512, b"{}", id="in the place of the token"),
    pytest.param(512 * KIBIBYTE, b"{}", id="who a node is"),
    pytest.param(MEBIBYTE, b"LUKS\xba\xbe\0\2" + b'{"segments":{"0":{"encryption":"cipher_null-ecb"}}}', id="luks2"),
    pytest.param(MEBIBYTE + 1080, b"\x53\xef", id="ext4 where the data begins"),
    pytest.param(HEAD - 1, b"\x01", id="end of the head"),
    pytest.param(SIZE - MEBIBYTE, b"\x01", id="begin of the tail"),
    pytest.param(SIZE - 1, b"\x01", id="last byte"),
    pytest.param(MARK, MARKED + b"!", id="no mark"),
]


@pytest.mark.parametrize(("offset", "data"), [*SOMETHING, pytest.param(1080, b"\x53\xef", id="ext4")])
def test_what_is_not_blank_is_not_made_anew(owned: Node, offset: int, data: bytes) -> None:
    owned.write(offset, data)
    before = owned.partition.read_bytes()
    assert owned.start() == Said(1, "", ["data-not-blank"])
    assert (owned.mounted, owned.changes) == (None, [])
    assert owned.partition.read_bytes() == before
    owned.write(offset, bytes(len(data)))
    assert owned.start() == Said(0, "", [])


@pytest.mark.parametrize(("offset", "data"), SOMETHING[::3])
def test_an_image_without_an_owner_makes_nothing_anew_either(node: Node, offset: int, data: bytes) -> None:
    node.write(offset, data)
    before = node.partition.read_bytes()
    assert node.start() == Said(1, "", ["data-not-blank"])
    assert (node.mounted, node.changes) == (None, [])
    assert node.partition.read_bytes() == before
    node.write(offset, bytes(len(data)))
    assert node.start() == Said(0, "", [])


def test_an_image_without_an_owner_leaves_encrypted_data_as_they_are(owned: Node) -> None:
    assert owned.start() == Said(0, "", [])
    before = owned.partition.read_bytes()
    (owned.folder / "owner.pem").rename(owned.folder / "away")
    assert owned.start() == Said(1, "", ["data-not-blank"])
    assert (owned.mounted, owned.changes) == (None, [])
    assert owned.partition.read_bytes() == before
    (owned.folder / "away").rename(owned.folder / "owner.pem")
    assert owned.start() == Said(0, "", [])


def test_a_mark_does_not_count_where_a_file_system_is(node: Node) -> None:
    """What an application writes may come to lie there, in a file system that has all of the partition."""
    assert node.start().status == 0
    node.write(MARK, MARKED)
    before = node.read(0, MARK)
    node.own()
    assert node.start() == Said(1, "", ["data-not-blank"])
    assert node.read(0, MARK) == before


@pytest.mark.parametrize("owner", [True, False])
@pytest.mark.parametrize("tail", [True, False])
def test_what_cannot_be_read_is_not_blank(tmp_path: Path, owner: bool, tail: bool) -> None:
    node = Node(tmp_path, owned=owner)
    node.partition.write_bytes(bytes(SIZE - 8192 if tail else SIZE // 2))  # its end is not there
    assert node.start() == Said(1, "", ["data-not-blank"])
    assert (node.mounted, node.changes) == (None, [])
    node.partition.write_bytes(bytes(SIZE))
    assert node.start() == Said(0, "", [])


def test_a_token_that_cannot_be_read_makes_nothing_anew(owned: Node) -> None:
    assert owned.start().status == 0
    owned.partition.write_bytes(owned.read(0, TOKEN))
    assert owned.start() == Said(1, "", ["data-token-invalid"])
    assert owned.changes == []


@pytest.mark.parametrize("token", [b"{}", b"\1", b"x" * 32 * KIBIBYTE])
def test_what_is_no_token_of_this_node_opens_nothing_and_is_not_made_anew(owned: Node, token: bytes) -> None:
    assert owned.start().status == 0
    good = owned.partition.read_bytes()
    owned.write(TOKEN, token)
    before = owned.partition.read_bytes()
    for mark in (b"", MARKED):
        owned.write(MARK, mark)
        assert owned.start() == Said(1, "", ["data-token-invalid"])
        assert (owned.mounted, owned.changes) == (None, [])
    assert owned.read(0, MARK) == before[:MARK]
    owned.partition.write_bytes(good)
    assert owned.start() == Said(0, "", [])


def test_a_blank_partition_stays_blank_where_nothing_can_be_sealed(owned: Node) -> None:
    owned.write(0, TICKET + b"\n")
    before = owned.partition.read_bytes()
    owned.agent("#!/bin/sh\n" + CLOSED.replace("CODE", "approval-missing"))
    assert owned.start() == Said(1, "", ["approval-missing"])
    assert (owned.changes, owned.partition.read_bytes()) == ([], before)
    owned.own()
    assert owned.start() == Said(0, "", [])


@pytest.mark.parametrize("key", ["", "0" * 127, "0" * 129, "A" * 128, "0" * 127 + " ", "0" * 126 + " 0"])
def test_the_kernel_is_given_a_key_and_nothing_else(owned: Node, key: str) -> None:
    owned.write(TOKEN, b"{}")
    owned.agent(f"#!/bin/sh\ncat > /dev/null\nprintf '%s\\n' '{key}'\n")
    assert owned.unlock() == Said(1, "", ["data-unopened"])
    assert not (owned.folder / "table").exists()
    owned.agent(f"#!/bin/sh\ncat > /dev/null\nprintf '%s\\n' '{'0' * 128}'\n")
    assert owned.unlock().status == 0


def test_a_partition_without_room_is_not_begun(owned: Node) -> None:
    (owned.folder / "class/vda4/size").write_text(f"{5 * MEBIBYTE // 512}\n")
    assert owned.unlock() == Said(1, "", ["data-small"])
    assert owned.changes == []
    (owned.folder / "class/vda4/size").write_text(f"{6 * MEBIBYTE // 512}\n")
    assert owned.unlock().status == 0


# --- tickets ------------------------------------------------------------------------------------------------------


def test_a_ticket_on_the_partition_of_a_new_node_is_handed_on_at_each_boot(node: Node) -> None:
    node.write(0, TICKET + b"\n")
    for _ in range(2):
        assert node.start() == Said(0, "", [])
        assert (node.folder / "ticket").read_bytes() == TICKET
        (node.folder / "ticket").unlink()


def test_a_ticket_on_the_partition_of_an_old_node_leaves_its_files(node: Node) -> None:
    assert node.start().status == 0
    assert not (node.folder / "ticket").exists()
    before = node.partition.read_bytes()
    for ticket in (b"eyJ" + b"a" * 900, b"eyJ" + b"b" * 300):  # the second leaves a piece of the first behind itself
        node.write(0, ticket + b"\n")
        assert node.start() == Said(0, "", [])
        assert (node.folder / "ticket").read_bytes() == ticket
    assert (node.changes, node.read(1024, SIZE)) == ([], before[1024:])


@pytest.mark.parametrize(("written", "taken"), [(b"\xeb\x58\x90" + b"MSDOS" * 300, 0), (b"eyJ" + b"a" * 4096, 1024)])
def test_what_is_no_ticket_is_not_handed_on(node: Node, written: bytes, taken: int) -> None:
    node.write(0, written)
    assert node.start() == Said(1, "", ["data-not-blank"])
    ticket = node.folder / "ticket"
    assert (ticket.stat().st_size if ticket.exists() else 0) == taken


# --- what is mounted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [True, False])
def test_what_does_not_mount_is_closed_and_stays_as_it_is(tmp_path: Path, owner: bool) -> None:
    node = Node(tmp_path, owned=owner)
    assert node.start() == Said(0, "", [])
    before = node.partition.read_bytes()
    program = (node.folder / "lib/making").read_text()
    (node.folder / "lib/making").write_text(program.replace("mount() {", "mount() { return 32;", 1))
    assert node.start() == Said(1, "", ["data-unopened"])
    assert (node.changes, node.partition.read_bytes()) == ([], before)
    assert ("remove data" in (node.folder / "mapped").read_text()) if owner else True
    (node.folder / "lib/making").write_text(program)
    assert node.start() == Said(0, "", [])


def test_data_is_mounted_so_that_little_can_come_of_it(node: Node) -> None:
    node.start()
    options = (node.folder / "mounted").read_text().split()[3].split(",")
    assert {"nosuid", "nodev", "noexec", "errors=remount-ro"} <= set(options)


@pytest.mark.parametrize("second", ["aaa", "vdb"])
def test_another_disk_s_partition_of_the_same_name_is_not_taken(node: Node, second: str) -> None:
    node.add_partition(second, f"{second}1", "data")
    node.add_partition(second, f"{second}2", "root-a")
    (node.folder / f"{second}1").write_bytes(TICKET.ljust(SIZE, b"\0"))
    assert node.start() == Said(0, "", [])
    assert node.mounted == str(node.partition)
    assert not (node.folder / "ticket").exists()
    (node.folder / "block/vda/vda4/uevent").unlink()
    assert node.start().status == 1
    assert node.mounted is None


@pytest.mark.parametrize("kept", [b'{"node": "pole-17"}\n', b"", b"no state\n"])
def test_a_node_whose_data_is_closed_still_knows_who_it_is(owned: Node, kept: bytes) -> None:
    owned.write(0, TICKET + b"\n")
    assert owned.start().status == 0
    owned.write(512 * KIBIBYTE, kept)
    owned.write(TOKEN, b"{}")
    (owned.folder / "state").mkdir(exist_ok=True)
    assert owned.start() == Said(1, "", ["data-token-invalid"])
    assert (owned.folder / "ticket").read_bytes() == TICKET
    found = {path.name: path.read_bytes() for path in (owned.folder / "state").iterdir()}
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
