"""Small node images, the disk of a node, and that disk as a power cut leaves it."""

import dataclasses
import datetime as dt
import hashlib
import json
import mmap
import random
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from umec_attest.testing.pe import make_pe, section_bytes
from umec_images.machine.esp import read_files
from umec_images.machine.partitions import spans
from umec_images.nodeimage.builder import BOOT_FILE, UPDATE_FILES
from umec_images.nodeimage.disk import MEBIBYTE, Partition, write_disk
from umec_images.nodeimage.fat import file_system
from umec_images.nodeimage.keys import load_certificates, make_keys
from umec_images.nodeimage.variables import variable_store
from umec_images.nodeimage.verity import BLOCK, append_tree
from umec_images.update import verify_image

LAYOUT = (("esp", 34), ("root-a", 1), ("root-b", 1), ("data", 1))
STORE_SIZE = 64 * 1024
SECTOR = 512
SIGNED: set[str] = set()
"""SHA-256 of every kernel image that was made: what a firmware starts."""


@dataclasses.dataclass(frozen=True)
class Made:
    """A folder with an image; `digest` is that of its manifest."""

    folder: Path
    digest: str
    version: int
    root_hash: bytes

    @property
    def image(self):
        return verify_image(self.folder, self.digest)

    @property
    def command_line(self) -> str:
        return json.loads((self.folder / "manifest.json").read_text())["command_line"]


def chance(seed: object) -> random.Random:
    return random.Random(str(seed))  # noqa: S311 - repeatable chance


def make_image(
    folder: Path,
    version: int,
    *,
    name: str = "street-node",
    blocks: int = 40,
    kernel: int = 70_000,
    sign: Callable[[bytes], bytes] = bytes,
    approval: bytes | None = None,
) -> Made:
    """Write what a build writes, as far as an update looks at it."""
    folder.mkdir()
    root, salt = folder / "root.img", hashlib.sha256(f"{name}/{version}".encode()).digest()
    root.write_bytes(chance(f"{name}{version}").randbytes(blocks * BLOCK))
    verity = append_tree(root, salt)
    words = (
        f"ro umec.version={version} roothash={verity.root_hash.hex()} umec.verity={verity.blocks}:{salt.hex()} panic=1"
    )
    release = f'ID=umec\nPRETTY_NAME="{name} {version}"\nIMAGE_ID={name}\nIMAGE_VERSION={version}\n'
    linux = chance(f"linux{version}").randbytes(kernel)
    image = sign(
        make_pe({".osrel": release.encode(), ".cmdline": words.encode(), ".initrd": b"initrd", ".linux": linux})
    )
    (folder / "uki.efi").write_bytes(image)
    if approval is not None:
        (folder / "approval").write_bytes(approval)
    SIGNED.add(hashlib.sha256(image).hexdigest())
    return Made(folder, write_manifest(folder, name, version, verity, words), version, verity.root_hash)


def write_manifest(folder: Path, name: str, version: int, verity, words: str) -> str:
    files = {
        each: {
            "sha256": hashlib.sha256((folder / each).read_bytes()).hexdigest(),
            "size": (folder / each).stat().st_size,
        }
        for each in ("uki.efi", "root.img", "approval")
        if (folder / each).exists()
    }
    manifest = {
        "name": name,
        "version": version,
        "suite": "bookworm",
        "kernel": "6.1.0",
        "command_line": words,
        "root_hash": verity.root_hash.hex(),
        "verity": {"salt": verity.salt.hex(), "blocks": verity.blocks, "hash_offset": verity.blocks * BLOCK},
        "moment": 1,
        "files": files,
    }
    raw = json.dumps(manifest, indent=2).encode()
    (folder / "manifest.json").write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def make_disk(path: Path, made: Made) -> Path:
    """Write a disk as a build lays it out."""
    partitions = [Partition(name, uuid.uuid5(uuid.NAMESPACE_DNS, name), size * MEBIBYTE) for name, size in LAYOUT]
    kernel = (made.folder / "uki.efi").read_bytes()
    pieces = [("esp", *piece) for piece in file_system({BOOT_FILE: kernel} | UPDATE_FILES, 34 * MEBIBYTE)]
    write_disk(path, partitions, "node", pieces, [("root-a", made.folder / "root.img")])
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> dict[int, Made]:
    """Versions 1 to 4; their kernel images and roots have different sizes."""
    folder = tmp_path_factory.mktemp("images")
    sizes = {1: (40, 20_000), 2: (50, 70_000), 3: (30, 10_000), 4: (129, 30_000)}
    return {
        version: make_image(folder / str(version), version, blocks=blocks, kernel=kernel)
        for version, (blocks, kernel) in sizes.items()
    }


@pytest.fixture(scope="session")
def first_disk(tmp_path_factory, images) -> Path:
    """The disk of a node with version 1, fresh from the build; nobody writes into this file."""
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.img", images[1])


@pytest.fixture(scope="session")
def image_factory():
    """`make_image`."""
    return make_image


@pytest.fixture(scope="session")
def disk_factory():
    """`make_disk`."""
    return make_disk


@pytest.fixture
def image_maker(tmp_path):
    """Makes images: `make_image` in a fresh folder."""
    return lambda name, *words, **further: make_image(tmp_path / name, *words, **further)


@pytest.fixture
def make_node(first_disk):
    """Makes nodes with version 1."""
    return lambda: Node(first_disk)


@pytest.fixture
def kept_node():
    """Makes nodes of disk images that are changed themselves."""
    return lambda disk: Node(disk, kept=True)


@pytest.fixture(scope="session")
def first_node(first_disk) -> "Node":
    """One for many examples: whoever changes it changes it back."""
    return Node(first_disk)


@pytest.fixture
def node(make_node) -> "Node":
    return make_node()


@pytest.fixture(scope="session")
def variables_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("variables")
    make_keys(folder / "keys", dt.datetime(2026, 11, 22, tzinfo=dt.UTC))
    volume = bytearray(72)
    volume[40:44] = b"_FVH"
    struct.pack_into("<H", volume, 48, len(volume))
    authenticated = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
    header = struct.pack("<16sIBBHI", authenticated.bytes_le, STORE_SIZE, 0x5A, 0xFE, 0, 0)
    empty = bytes(volume) + header + b"\xff" * (STORE_SIZE - len(header)) + b"what is behind it"
    (folder / "vars.fd").write_bytes(variable_store(empty, load_certificates(folder / "keys")))
    return folder / "vars.fd"


class PowerCut(Exception):
    """The power goes."""


class Dead(Exception):
    """It does not start."""


class Firmware:
    """The variables of a node's firmware: each is kept whole, at once."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    def write(self, name: str, value: bytes) -> None:
        self._node.count()
        self._node.variables[name] = value

    def remove(self, name: str) -> None:
        self._node.count()
        self._node.variables.pop(name, None)


class Node:
    """A node's disk image, changed in memory only unless it is `kept`, and its firmware's variables.

    `cut_after` operations the power goes: of each sector that was written since the last flush, some content that it
    had since then is what is left. Variables are kept one by one, as a firmware keeps them.
    """

    power_cut = PowerCut
    dead = Dead

    def __init__(self, disk: Path, *, kept: bool = False) -> None:
        self._path = disk
        flags, rights = (mmap.MAP_SHARED if kept else mmap.MAP_PRIVATE), mmap.PROT_READ | mmap.PROT_WRITE
        with disk.open("r+b" if kept else "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, flags=flags, prot=rights)
        self.size = len(self.data)
        self.variables: dict[str, bytes] = {}
        self.firmware = Firmware(self)
        self.cut_after: int | None = None
        self.operations = 0
        self._unsafe: dict[int, list[bytes]] = {}
        self._written: set[int] = set()

    def twin(self) -> "Node":
        """Return another node, whose disk and variables are the same."""
        node = Node(self._path)
        for at in self._written:
            node.data[at : at + SECTOR] = self.data[at : at + SECTOR]
        node._written, node.variables = set(self._written), dict(self.variables)
        return node

    # --- what the updater uses

    def read(self, offset: int, size: int) -> bytes:
        assert 0 <= offset <= offset + size <= self.size
        return self.data[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        assert offset % SECTOR == 0 == len(data) % SECTOR, "a sector is written in part"
        self.count()
        for place in range(0, len(data), SECTOR):
            at = offset + place
            versions = self._unsafe.setdefault(at, [self.data[at : at + SECTOR]])
            versions.append(bytes(data[place : place + SECTOR]))
            self._written.add(at)
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.count()
        self._unsafe.clear()

    def count(self) -> None:
        if self.operations == self.cut_after:
            raise PowerCut
        self.operations += 1

    # --- what an adversary does

    chance = staticmethod(chance)

    def lose(self, chance: random.Random) -> None:
        """Leave what a power cut leaves."""
        kind = chance.choice(["nothing", "everything", "sectors", "sectors", "sectors"])
        for at, versions in self._unsafe.items():
            left = {"nothing": versions[0], "everything": versions[-1]}.get(kind) or chance.choice(versions)
            self.data[at : at + SECTOR] = left
        self._unsafe.clear()
        self.operations, self.cut_after = 0, None

    # --- what a start does

    def files(self) -> dict[str, bytes]:
        return dict(read_files(self._partition("esp")))

    def start(self) -> Made:
        """Start as firmware, stub and first program do; return what runs, whole. Raises Dead."""
        files = self.files()
        asked = self.variables.pop("BootNext", None)
        kernel = files.get("EFI/BOOT/BOOTX64.EFI")
        if asked is not None:
            option = self.variables[f"Boot{struct.unpack('<H', asked)[0]:04X}"]
            trial = files.get(option_path(option))
            kernel = trial if trial is not None and hashlib.sha256(trial).hexdigest() in SIGNED else kernel
        if kernel is None or hashlib.sha256(kernel).hexdigest() not in SIGNED:
            raise Dead("there is no kernel image, or one that nobody signed")
        words = section_bytes(kernel, ".cmdline").decode().split()
        pairs = dict(word.split("=", 1) for word in words if "=" in word)
        root_hash = bytes.fromhex(pairs["roothash"])
        blocks, salt = pairs["umec.verity"].split(":")
        for name in ("root-a", "root-b"):
            slot = self._partition(name)
            if bytes(slot[int(blocks) * BLOCK + 16 :][:16]) == root_hash[:16]:
                verify(slot, int(blocks), bytes.fromhex(salt), root_hash)
                return Made(Path(), hashlib.sha256(kernel).hexdigest(), int(pairs["umec.version"]), root_hash)
        raise Dead("no slot holds the root file system")

    def _partition(self, name: str) -> memoryview:
        span = spans(self._path)[name]
        return memoryview(self.data)[span.start : span.start + span.size]


def option_path(option: bytes) -> str:
    """The file that a boot option names, by its last device path but the end."""
    length = struct.unpack_from("<H", option, 4)[0]
    paths, found = option[-length:], ""
    while paths[:2] != b"\x7f\xff":
        size = struct.unpack_from("<H", paths, 2)[0]
        if paths[:2] == b"\x04\x04":
            found = paths[4:size].decode("utf-16-le").rstrip("\0")
        paths = paths[size:]
    return found.replace("\\", "/").lstrip("/")


def verify(slot: memoryview, blocks: int, salt: bytes, root_hash: bytes) -> None:
    """Read every block as dm-verity does: down from the root hash, each by the stored block above it."""
    counts = [blocks]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // 128))
    levels = counts[1:] if blocks > 1 else []
    place, above = blocks + 1, [root_hash]
    for count in [*reversed(levels), None]:
        start, wanted = (place, count) if count is not None else (0, blocks)
        stored = [bytes(slot[(start + n) * BLOCK : (start + n + 1) * BLOCK]) for n in range(wanted)]
        for number, block in enumerate(stored):
            if hashlib.sha256(salt + block).digest() != above[number // 128][number % 128 * 32 :][:32]:
                raise Dead(f"block {start + number} is not the one that was promised")
        above = stored
        place += wanted
