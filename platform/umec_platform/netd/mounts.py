"""Two system calls: mount a small tmpfs for secrets, and take it away."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from umec_platform.netd.errors import RuntimeFailed

__all__ = ["mount_tmpfs", "unmount"]

_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MNT_DETACH: Final = 2
_SIZE: Final = 4 * 1024 * 1024
"""Octets: 32 secrets of 64 KiB, and as much again."""


def mount_tmpfs(path: Path) -> None:
    """Mount a tmpfs that only root can enter; raises `RuntimeFailed`."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    options = f"size={_SIZE},mode=0700".encode()
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", ctypes.c_ulong(flags), options) != 0:
        raise RuntimeFailed(f"no tmpfs for secrets: {os.strerror(ctypes.get_errno())}")


def unmount(path: Path) -> None:
    """Unmount, if something is mounted there; raises `RuntimeFailed`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EINVAL, errno.ENOENT}:
        raise RuntimeFailed(f"secrets cannot be unmounted: {os.strerror(number)}")
