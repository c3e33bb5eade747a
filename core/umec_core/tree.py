"""The Merkle tree of RFC 6962 (section 2.1) over SHA-256: pure, append-only, with both kinds of proof.

tree = Tree(); tree.append(entry)                       keeps the hashes of all complete subtrees
tree.inclusion(index, size), tree.consistency(first, second)
verify_inclusion(…), verify_consistency(…)              raise, need no tree (RFC 9162, sections 2.1.3.2, 2.1.4.2)

TreeError
├── TreeRange             tree-range
├── InclusionInvalid      tree-inclusion-invalid
└── ConsistencyInvalid    tree-consistency-invalid
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from umec_core.errors import UmecError

__all__ = [
    "EMPTY_ROOT",
    "ConsistencyInvalid",
    "InclusionInvalid",
    "Tree",
    "TreeError",
    "TreeRange",
    "leaf_hash",
    "node_hash",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


class TreeError(UmecError):
    """A tree cannot give, or a proof does not prove, what was asked."""

    code = "tree-invalid"


class TreeRange(TreeError):
    """An index or size lies outside of the tree."""

    code = "tree-range"


class InclusionInvalid(TreeError):
    """A proof does not show that the entry is in the tree."""

    code = "tree-inclusion-invalid"


class ConsistencyInvalid(TreeError):
    """A proof does not show that the newer tree begins with the older one."""

    code = "tree-consistency-invalid"


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """An append-only tree in memory: 64 bytes a leaf."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]  # _levels[k][i] = root of the leaves i·2^k … (i+1)·2^k

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0])

    def append(self, entry: bytes) -> int:
        """Add an entry and return its index."""
        return self.append_hash(leaf_hash(entry))

    def append_hash(self, leaf: bytes) -> int:
        """Add an entry by its leaf hash and return its index."""
        index = self.size
        level = 0
        self._levels[0].append(leaf)
        while len(self._levels[level]) % 2 == 0:
            left, right = self._levels[level][-2:]
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node_hash(left, right))
        return index

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves (all by default); raises `TreeRange`."""
        size = self.size if size is None else size
        self._check(0 <= size <= self.size, f"size {size}")
        return EMPTY_ROOT if size == 0 else self._range(0, size)

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Return PATH(index, D[size]): the audit path, from the leaf up; raises `TreeRange`."""
        size = self.size if size is None else size
        self._check(0 <= index < size <= self.size, f"index {index} in size {size}")
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, first: int, second: int | None = None) -> list[bytes]:
        """Return PROOF(first, D[second]), empty when the sizes are equal; raises `TreeRange`."""
        second = self.size if second is None else second
        self._check(0 < first <= second <= self.size, f"from size {first} to {second}")
        proof: list[bytes] = []
        start, end, known = 0, second, True  # known: the first tree's root is the root of [start, first)
        while first != end:
            middle = start + _split(end - start)
            if first <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start, known = middle, False
        if not known:
            proof.append(self._range(start, end))
        return proof[::-1]

    def _range(self, start: int, end: int) -> bytes:
        """Return the root of the leaves [start, end), where start is a multiple of the range's largest power of two."""
        size = end - start
        if size & (size - 1) == 0:
            level = size.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + _split(size)
        return node_hash(self._range(start, middle), self._range(middle, end))

    def _check(self, holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
        if not holds:
            raise TreeRange(f"{what} is outside of a tree of {self.size} leaves")


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this hash is at `index` of the tree of `size` leaves; raises `InclusionInvalid`."""
    if not 0 <= index < size:
        raise InclusionInvalid(f"index {index} is outside of a tree of {size} leaves")
    node, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise InclusionInvalid("the path is longer than the tree is high")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise InclusionInvalid("the path is shorter than the tree is high")
    if found != root:
        raise InclusionInvalid("the path does not lead to the root")


def verify_consistency(first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes) -> None:
    """Check that the tree of `second` leaves begins with that of `first`; raises `ConsistencyInvalid`."""
    if not 0 < first <= second:
        raise ConsistencyInvalid(f"there is no consistency from size {first} to {second}")
    if first == second:
        if proof or first_root != second_root:
            raise ConsistencyInvalid("trees of one size have different roots")
        return
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        raise ConsistencyInvalid("the proof is empty")
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ConsistencyInvalid("the proof is longer than the tree is high")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ConsistencyInvalid("the proof is shorter than the tree is high")
    if old != first_root or new != second_root:
        raise ConsistencyInvalid("the proof does not connect the two roots")


def _split(size: int) -> int:
    """Return the largest power of two that is smaller than size (k in RFC 6962)."""
    return 1 << (size - 1).bit_length() - 1
