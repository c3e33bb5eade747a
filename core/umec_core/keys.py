"""Private keys in files: P-256, PKCS #8 PEM, mode 0600, created atomically, and refused when others may read them."""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from umec_core.errors import UmecError

__all__ = [
    "KeyFileExposed",
    "KeyFileInvalid",
    "load_key",
    "load_or_create_key",
    "load_or_create_secret",
    "private_pem",
    "read_private",
    "write_private",
]

MAX_PRIVATE_FILE: Final = 64 * 1024
"""Bytes; a key or a credential is some hundred bytes long, so anything longer is not one."""

EXPOSED: Final = stat.S_IRWXG | stat.S_IRWXO
"""The permission bits that a private file may not have."""


class KeyFileExposed(UmecError):
    """A private file may be read or written by others than its owner."""

    code = "key-file-exposed"


class KeyFileInvalid(UmecError):
    """A file does not hold a P-256 private key."""

    code = "key-file-invalid"


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 so that a reader sees the old or the new content and nothing between."""
    draft = _draft(path, data)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """Return the content of a file that only its owner may read; raises `KeyFileExposed` otherwise."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & EXPOSED:
            raise KeyFileExposed(
                f"{path} has mode {stat.S_IMODE(mode):04o}, expected 0600",
                advice=f"chmod 600 {path}, and renew the key",
            )
        return file.read(MAX_PRIVATE_FILE)


def private_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Return a key as unencrypted PKCS #8 PEM, for a file that `write_private` writes."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(path: Path) -> EllipticCurvePrivateKey:
    """Return the P-256 key of a file; raises `KeyFileExposed` or `KeyFileInvalid`."""
    data = read_private(path)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileInvalid(f"{path} is not an unencrypted PKCS #8 key in PEM") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise KeyFileInvalid(f"{path} holds another kind of key, expected P-256")
    return key


def load_or_create_key(path: Path) -> EllipticCurvePrivateKey:
    """Return the P-256 key of a file, making key and file (mode 0600, folder 0700) where there is none.

    Of two processes that start at once, both end with the key of the one that was first.
    """
    if not path.exists():
        _create(path, private_pem(generate_private_key(SECP256R1())))
    return load_key(path)


def load_or_create_secret(path: Path, size: int) -> bytes:
    """Return the secret of a file, making `size` random bytes and file where there is none, as `load_or_create_key`."""
    if not path.exists():
        _create(path, secrets.token_bytes(size))
    return read_private(path)


def _create(path: Path, data: bytes) -> None:
    """Write a private file, unless another process was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = _draft(path, data)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    _sync_folder(path.parent)


def _draft(path: Path, data: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
