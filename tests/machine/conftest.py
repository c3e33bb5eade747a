"""A node image that nothing could boot, and that is one in every other respect: keys, signature, disk, variables."""

import datetime as dt
import hashlib
import json
import struct
import uuid
from pathlib import Path

import pytest

from umec_attest.testing.pe import make_pe
from umec_images.machine import NodeImageFolder, open_folder
from umec_images.nodeimage.authenticode import sign_image
from umec_images.nodeimage.disk import MEBIBYTE, Partition, write_disk
from umec_images.nodeimage.fat import file_system
from umec_images.nodeimage.keys import load_certificates, load_signer, make_keys
from umec_images.nodeimage.variables import variable_store

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
KERNEL = "EFI/BOOT/BOOTX64.EFI"
LAYOUT = (("esp", 36), ("root-a", 1), ("root-b", 1), ("data", 1))
STORE_SIZE = 64 * 1024
AUTHENTICATED = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")


def empty_store() -> bytes:
    """A variable store of EDK II without a variable: the headers of volume and store, and erased flash."""
    volume = bytearray(72)
    volume[40:44] = b"_FVH"
    struct.pack_into("<H", volume, 48, len(volume))
    header = struct.pack("<16sIBBHI", AUTHENTICATED.bytes_le, STORE_SIZE, 0x5A, 0xFE, 0, 0)
    return bytes(volume) + header + b"\xff" * (STORE_SIZE - len(header)) + b"what is behind it"


def kernel_image(keys: Path, version: int) -> bytes:
    """A signed image with the sections of a unified kernel image."""
    sections = {
        ".osrel": f"VERSION_ID={version}\n".encode(),
        ".cmdline": f"ro roothash={'a' * 64} version={version}".encode(),
        ".initrd": bytes(range(256)) * 8,
        ".linux": b"a kernel" * 512,
    }
    return sign_image(make_pe(sections), load_signer(keys))


def make_folder(folder: Path, keys: Path, version: int) -> Path:
    """Write what a build writes, as far as a machine needs it."""
    folder.mkdir()
    root = folder / "root.img"
    root.write_bytes(f"hsqs of version {version}".encode().ljust(8192, b"r"))
    partitions = [Partition(name, uuid.uuid5(uuid.NAMESPACE_DNS, name), size * MEBIBYTE) for name, size in LAYOUT]
    files = file_system({KERNEL: kernel_image(keys, version), "EFI/README.TXT": b"no kernel"}, 36 * MEBIBYTE)
    pieces = [("esp", offset, data) for offset, data in files] + [("data", 0, b"what a builder leaves there")]
    write_disk(folder / "disk.img", partitions, "machine", pieces, [("root-a", root), ("root-b", root)])
    (folder / "vars.fd").write_bytes(variable_store(empty_store(), load_certificates(keys)))
    firmware = folder / "firmware.fd"
    firmware.write_bytes(b"a firmware")
    said = {"code": str(firmware), "sha256": hashlib.sha256(b"a firmware").hexdigest(), "version": "1"}
    (folder / "firmware.json").write_text(json.dumps(said))
    (folder / "manifest.json").write_text(json.dumps({"name": "machine", "version": version}))
    return folder


@pytest.fixture(scope="session")
def owner_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "owner"
    make_keys(folder, NOW)
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory, owner_keys: Path) -> Path:
    return make_folder(tmp_path_factory.mktemp("images") / "new", owner_keys, 2)


@pytest.fixture
def image(image_folder: Path) -> NodeImageFolder:
    return open_folder(image_folder)


@pytest.fixture(scope="session")
def older_image(tmp_path_factory: pytest.TempPathFactory, owner_keys: Path) -> NodeImageFolder:
    return open_folder(make_folder(tmp_path_factory.mktemp("images") / "old", owner_keys, 1))
