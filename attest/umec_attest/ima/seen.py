"""Entries that some node of the fleet had already, and that were found good: what is known of them is their digest.

An entry is remembered as it came, byte for byte, so that nothing of it needs to be looked at again. What is remembered
is bound to one policy and one bank. A node whose programs differ from those of all others costs what it cost before.
"""

from collections import OrderedDict
from threading import Lock
from typing import Final

__all__ = ["SeenByFleet", "SeenEntries"]

MAX_ENTRIES: Final = 65_536
"""In a generation. A whole distribution has some 60,000 files that are measured; with 150 bytes each, 23 MB."""
MAX_ENTRY_SIZE: Final = 512
"""Bytes; entries beyond it (buffers, long signatures) are rare, and would let a node fill the memory."""
MAX_POLICIES: Final = 8
"""Policies of which something is remembered at a time: one for each image, and two while a new set is rolled out."""


class SeenEntries:
    """Good entries of one policy and bank, with their template digests.

    Two generations: what is not asked for while `size` others come in is forgotten.
    """

    __slots__ = ("_size", "former", "recent")

    def __init__(self, size: int = MAX_ENTRIES) -> None:
        self.recent: dict[bytes, bytes] = {}
        self.former: dict[bytes, bytes] = {}
        self._size = size

    def add(self, raw: bytes, digest: bytes) -> None:
        """Remember a good entry."""
        if len(raw) > MAX_ENTRY_SIZE:
            return
        if len(self.recent) >= self._size:
            self.former = self.recent.copy()
            self.recent.clear()  # and stay the same: whoever walks a list holds it
        self.recent[raw] = digest


class SeenByFleet:
    """What is remembered for each policy and bank. Safe to share between threads."""

    __slots__ = ("_known", "_lock")

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], SeenEntries] = OrderedDict()
        self._lock = Lock()

    def of(self, policy_sha256: str, algorithm: int) -> SeenEntries:
        """Return what is remembered; the policy that was of no use for longest gives way."""
        key = (policy_sha256, algorithm)
        with self._lock:
            seen = self._known.setdefault(key, SeenEntries())
            self._known.move_to_end(key)
            if len(self._known) > MAX_POLICIES:
                self._known.popitem(last=False)
            return seen
