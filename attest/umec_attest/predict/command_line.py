"""What a kernel command line has the kernel measure of what runs (IMA)."""

import re
from collections.abc import Iterator
from typing import Final

from umec_attest.errors import ImageFolderInvalid

__all__ = ["check_measuring"]

_WORD: Final = re.compile(r'(?:"[^"]*(?:"|$)|[^\s"])+')
"""A quoted part may have blanks (Linux, lib/cmdline.c, next_arg)."""


def check_measuring(command_line: str) -> None:
    """Return if the kernel measures what runs, by SHA-256, from its start on. Errors: `ImageFolderInvalid`."""
    said = [(name.replace("-", "_"), value) for name, value in _words(command_line)]
    policies = [value for name, value in said if name == "ima_policy"]
    hashes = [value for name, value in said if name == "ima_hash"]
    if not any("tcb" in re.split(r"[ |]", value) for value in policies):
        raise ImageFolderInvalid("the command line lacks ima_policy=tcb: the kernel would measure nothing that runs")
    if hashes[:1] != ["sha256"]:  # the kernel takes the first one
        raise ImageFolderInvalid("the command line lacks ima_hash=sha256, and a list of SHA-256 would allow nothing")
    if any(name == "initcall_blacklist" for name, _ in said):
        raise ImageFolderInvalid("the command line leaves out a part of the kernel: it may be the one that measures")


def _words(command_line: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of the kernel's words; those after "--" are for init."""
    for word in _WORD.findall(command_line):
        name, _, value = word.removeprefix('"').partition("=")
        if name == "--":
            return
        yield name, value.strip('"')
