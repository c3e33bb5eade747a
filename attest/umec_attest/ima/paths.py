"""Paths as the kernel measures them, and the patterns that exclude some of them.

A pattern is an absolute path, and is compared with a whole path, component by component. In a component one `*` stands
for any characters, none included; `**` as the last component stands for everything below, at any depth. There is no
more to it: a regular expression would be unanchored by oversight, or take exponential time over a path that an
attacker has chosen, and nobody can tell by looking at it. The first component is literal, so that no pattern excludes
all that runs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from umec_attest.errors import ReferenceInvalid

__all__ = ["PathPattern", "measured_path", "parse_pattern", "policy_path"]

MAX_PATH: Final = 4096
"""Bytes: PATH_MAX of Linux."""

_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/\x00-\x20\x7f-\x9f\ud800-\udfff]+)+")
"""Absolute, without empty, "." and ".." components, and without blanks, control characters and halves of pairs."""


@dataclass(frozen=True, slots=True)
class PathPattern:
    """One pattern: what each component begins and ends with (None: it is literal), and whether `**` follows."""

    text: str
    components: tuple[tuple[bytes, bytes | None], ...]
    deep: bool

    def matches(self, components: Sequence[bytes]) -> bool:
        """Tell whether a path of these components is excluded: linear in its length."""
        count = len(self.components)
        if len(components) <= count if self.deep else len(components) != count:
            return False
        return all(
            found == head
            if tail is None
            else len(found) >= len(head) + len(tail) and found.startswith(head) and found.endswith(tail)
            for (head, tail), found in zip(self.components, components, strict=False)
        )


def parse_pattern(text: str) -> PathPattern:
    """Return a pattern; `ReferenceInvalid` where it is none."""
    components = policy_path(text).split("/")[1:]
    deep = components[-1] == "**"
    components = components[:-1] if deep else components
    if not components or "*" in components[0]:
        raise ReferenceInvalid(f"the pattern {text[:80]!r} begins with a wildcard: it would exclude whatever runs")
    if any(component.count("*") > 1 for component in components):
        raise ReferenceInvalid(f"the pattern {text[:80]!r} has two wildcards in a component, or `**` before its end")
    return PathPattern(text, tuple(_component(component.encode()) for component in components), deep)


def _component(text: bytes) -> tuple[bytes, bytes | None]:
    head, star, tail = text.partition(b"*")
    return head, tail if star else None


def policy_path(text: str) -> str:
    """Return a path of a policy; `ReferenceInvalid` where no kernel would ever measure one like it."""
    if not _PATH.fullmatch(text) or len(text.encode()) > MAX_PATH:
        raise ReferenceInvalid(
            f"{text[:80]!r} is no absolute path without blanks, control characters, '.' and '..'",
            advice="Linux measures an underscore for a blank",
        )
    return text


def measured_path(name: bytes) -> str | None:
    """Return a measured name as a path, or None where the kernel gives no such path, or not without doubt."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    return text if len(name) <= MAX_PATH and _PATH.fullmatch(text) else None
