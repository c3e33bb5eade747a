"""What boot loaders were told, as PCRs 8, 9, 12 and 14 prove it: GRUB's commands, kernel command lines, shim's lists.

The label that GRUB puts in front of a text is in no digest. So a text counts as a kernel's command line because a
command such as "linux …" before it has the same words, not because it is called one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from umec_attest.bootlog.draft import Draft, Measured
from umec_attest.bootlog.event_types import EV_IPL

__all__ = ["CommandLine", "Grub", "Shim", "read_grub", "read_shim", "read_stub"]

_GRUB_PCR: Final = 8
_LABEL: Final = re.compile(rb"grub_cmd|(?P<line>(?:grub_)?kernel_cmdline|module_cmdline)")
_LOAD: Final = re.compile(r"(?:linux(?:16|efi)?|multiboot2?|module2?|xen_hypervisor) (.+)", re.DOTALL)
"""Commands that load a kernel, a hypervisor or its first guest, with its command line."""
_QUOTES: Final = str.maketrans("", "", "\"'\\")
"""GRUB quotes the arguments of a command line, not those of a command."""
_TRUSTED, _UNTRUSTED = b"\x01", b"\0"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The command line of a kernel. `source` is "grub" (PCR 8) or "stub": systemd's loader or stub (PCR 8 or 12)."""

    source: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return {"source", "text"}."""
        return {"source": self.source, "text": self.text}


@dataclass(frozen=True, slots=True)
class Grub:
    """What GRUB did: its commands in order, and the digests (hex) of what was measured into PCR 9, files it read.

    `complete` tells whether PCR 8 holds nothing but these commands and command lines.
    """

    commands: tuple[str, ...]
    files: tuple[str, ...]
    complete: bool

    def to_json(self) -> dict[str, Any]:
        """Return {"commands", "files", "complete"}."""
        return {"commands": list(self.commands), "files": list(self.files), "complete": self.complete}


@dataclass(frozen=True, slots=True)
class Shim:
    """What shim measured: its SBAT level, whether the owner's keys (MokList) count, and the digests (hex) of PCR 14.

    `mok_list_trusted` is None where neither PCR 7 nor PCR 14 says it.
    """

    sbat_level: str | None
    mok_list_trusted: bool | None
    lists: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return {"sbat_level", "mok_list_trusted", "lists"}."""
        return {
            "sbat_level": self.sbat_level,
            "mok_list_trusted": self.mok_list_trusted,
            "lists": list(self.lists),
        }


def read_grub(
    draft: Draft, commands: Sequence[Measured], files: Sequence[Measured]
) -> tuple[Grub | None, tuple[CommandLine, ...]]:
    """Return what GRUB did, and the command lines of the kernels that it was to start; None if no GRUB measured."""
    labels = [_LABEL.match(event.data) for event in commands]
    texts = [_text(event) for event, label in zip(commands, labels, strict=True) if label and event.proven is not None]
    if not texts:
        return None, ()
    said: list[str] = []
    lines: list[CommandLine] = []
    wanted: set[str] = set()
    for text in texts:
        if text.translate(_QUOTES) in wanted:
            lines.append(CommandLine("grub", text))
            continue
        said.append(text)
        if (load := _LOAD.fullmatch(text)) is not None:
            wanted.add(load[1].translate(_QUOTES))
    if sum(label is not None and label["line"] is not None for label in labels) != len(lines):
        draft.find("grub-command-line-unproven", _GRUB_PCR, "what is called a command line and what is one differ")
    complete = len(texts) == len(commands)
    return Grub(tuple(said), tuple(event.digest.hex() for event in files), complete), tuple(lines)


def read_stub(events: Sequence[Measured]) -> tuple[CommandLine, ...]:
    """Return the command lines that systemd-boot and systemd-stub measured: the log has all of their text."""
    lines: list[CommandLine] = []
    for event in events:
        if event.type != EV_IPL or event.proven is None or _LABEL.match(event.data):
            continue
        try:
            lines.append(CommandLine("stub", event.proven.decode("utf-16-le").rstrip("\0")))
        except UnicodeDecodeError:
            continue
    return tuple(lines)


def read_shim(draft: Draft, variables: dict[str, bytes], lists: Sequence[Measured]) -> Shim | None:
    """Return what shim measured: `variables` as PCR 7 proves them, and PCR 14; None if there is neither.

    The names in PCR 14 are in no digest; but a digest of one byte 1 there says that somebody's switch is on.
    """
    if not variables and not lists:
        return None
    switch = variables.get("MokListTrusted")
    digests = {event.digest for event in lists}
    trusted: bool | None = None
    if switch == _TRUSTED or draft.algorithm.digest(_TRUSTED) in digests:
        trusted = True
    elif switch == _UNTRUSTED or draft.algorithm.digest(_UNTRUSTED) in digests:
        trusted = False
    level = variables.get("SbatLevel")
    return Shim(
        None if level is None else level.decode("utf-8", "replace"),
        trusted,
        tuple(event.digest.hex() for event in lists),
    )


def _text(event: Measured) -> str:
    return (event.proven or b"").rstrip(b"\0").decode("utf-8", "replace")
