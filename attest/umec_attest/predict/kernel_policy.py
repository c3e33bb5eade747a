"""The policy by which the kernel of an image measures (IMA) from its first program on: one of those that are known.

A policy decides what is in the list of what ran. One that nobody has looked at could leave out what an attacker starts.
"""

import hashlib
from pathlib import Path
from typing import Final

from umec_attest.errors import ImageFolderInvalid

__all__ = ["KERNEL_POLICY", "find_kernel_policy"]

KERNEL_POLICY: Final = "/etc/umec/ima-policy"
KNOWN: Final = frozenset({"004c61bf8e08c20131fda5f79584727dab871aa7f102dc90b07e10e3b3e0493d"})
"""SHA-256 (hex) of each policy that images of ours have had."""
MAX_POLICY: Final = 64 * 1024
"""Bytes; ours has some 2,000."""


def find_kernel_policy(root: Path) -> bool:
    """Tell whether a root file system has a policy of its own; without one, `ima_policy=tcb` measures more than any.

    Errors: `ImageFolderInvalid` for a policy that is not known.
    """
    path = root / KERNEL_POLICY.removeprefix("/")
    if not path.exists() and not path.is_symlink():
        return False
    try:
        with path.open("rb") as file:
            found = hashlib.sha256(file.read(MAX_POLICY)).hexdigest()
    except OSError as error:
        raise ImageFolderInvalid(f"{KERNEL_POLICY} cannot be read: {error.strerror}") from None
    if path.is_symlink() or found not in KNOWN:
        raise ImageFolderInvalid(
            f"{KERNEL_POLICY} (sha256 {found}) is no policy known here: nobody can say what the kernel would leave out"
        )
    return True
