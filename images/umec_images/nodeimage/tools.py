"""Programs and files of other Debian packages that a build needs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from umec_images.nodeimage.errors import ToolFailed, ToolMissing

__all__ = ["piped", "require_file", "run"]

PACKAGES: Final = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "/usr/lib/systemd/boot/efi/linuxx64.efi.stub": "systemd-boot-efi",
    "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd": "ovmf",
    "/usr/share/OVMF/OVMF_VARS_4M.fd": "ovmf",
}
"""Which package brings what."""
HOUR: Final = 3600
"""Seconds: nothing here takes longer, not even a download of a whole system."""
LAST_WORDS: Final = 400
"""Characters of what a program said that go into a refusal."""
PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Final = {
    "PATH": PATH,
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": os.devnull,
    "PYTHONHASHSEED": "0",  # the order of sets in compiled Python
}
"""Of every program: nothing of the caller's, so that nothing of it shows in an image."""


def run(arguments: Sequence[str], *, cwd: Path | None = None) -> str:
    """Run a program and return what it says. Raises ToolMissing, ToolFailed."""
    done = subprocess.run(_command(arguments), capture_output=True, check=False, cwd=cwd, env=ENVIRONMENT, timeout=HOUR)
    if done.returncode != 0:
        raise _failed(arguments, done.returncode, done.stderr or done.stdout)
    return done.stdout.decode(errors="replace")


@contextmanager
def piped(arguments: Sequence[str]) -> Iterator[IO[bytes]]:
    """Run a program and yield what it says as it says it. Raises ToolMissing, ToolFailed."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(_command(arguments), stdout=subprocess.PIPE, stderr=errors, env=ENVIRONMENT)
        try:
            with process.stdout or errors as stream:
                yield stream
                while stream.read(1024 * 1024):
                    pass  # a program whose last words nobody reads would end with an error
        finally:
            status = process.wait(HOUR)
        if status != 0:
            errors.seek(0)
            raise _failed(arguments, status, errors.read())


def _command(arguments: Sequence[str]) -> list[str]:
    program = shutil.which(arguments[0], path=PATH)
    if program is None:
        package = PACKAGES.get(arguments[0])
        raise ToolMissing(
            f"{arguments[0]} is not here", advice=None if package is None else f"apt-get install {package}"
        )
    return [program, *arguments[1:]]


def _failed(arguments: Sequence[str], status: int, said: bytes) -> ToolFailed:
    words = said.decode(errors="replace").strip()
    return ToolFailed(f"{arguments[0]} failed with status {status}: {words[-LAST_WORDS:]}")


def require_file(path: str) -> Path:
    """Return the path of a file that a Debian package brings. Raises ToolMissing."""
    if not Path(path).is_file():
        raise ToolMissing(f"{path} is not here", advice=f"apt-get install {PACKAGES[path]}")
    return Path(path)
