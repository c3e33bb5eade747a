"""Secure Boot keys once for all tests here, an empty variable store, and packages that are made by hand."""

import datetime as dt
import io
import struct
import tarfile
from pathlib import Path

import pytest

from umec_images.nodeimage.keys import load_certificates, load_signer, make_keys

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("secure-boot") / "keys"
    make_keys(folder, NOW)
    return folder


@pytest.fixture(scope="session")
def certificates(key_folder):
    return load_certificates(key_folder)


@pytest.fixture(scope="session")
def signer(key_folder):
    return load_signer(key_folder)


@pytest.fixture(scope="session")
def empty_store() -> bytes:
    """A firmware volume with an empty store of authenticated variables (EDK II: FvHeader, VariableStoreHeader)."""
    size = 64 * 1024
    guid = bytes.fromhex("782cf3aa7b949a43a1802e144ec37792")
    volume = bytes(16) + bytes(16) + struct.pack("<Q4sIHHHBB", 2 * size, b"_FVH", 0, 72, 0, 0, 0, 2) + bytes(16)
    store = guid + struct.pack("<IBBHI", size - 72, 0x5A, 0xFE, 0, 0)
    return (volume + store).ljust(size, b"\xff") + bytes(size)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info, content


@pytest.fixture
def make_deb(tmp_path):
    """Makes a Debian package of members: (name, content, kind, link)."""
    return lambda *members: write_deb(tmp_path / "made.deb", *(member(**each) for each in members))


def write_deb(path: Path, *members) -> Path:
    """A Debian package (deb(5)) as `ar` would write it."""
    control = tar_of(member("./control", b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"))
    parts = {"debian-binary": b"2.0\n", "control.tar": control, "data.tar": tar_of(*members)}
    out = b"!<arch>\n"
    for name, content in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    path.write_bytes(out)
    return path
