"""The transparency log: entries in the store, their RFC 6962 tree in memory, a signed checkpoint with every answer.

An answer is given only after its entry and the new root are committed. A start rebuilds the tree and refuses to go on
when its root is not the one that was signed last (rows deleted, changed, or an old backup of one table).
"""

import asyncio
import base64
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.note import sign_checkpoint
from umec_core.store import Store
from umec_core.tree import Tree, leaf_hash
from umec_images.authority.entry import LogEntry
from umec_images.authority.errors import LogRewritten
from umec_images.authority.rows import CheckpointRow, EntryRow
from umec_images.authority.sct import key_id

__all__ = ["SigstoreLog"]

_ONLY = 1
"""Key of the one checkpoint row."""


class SigstoreLog:
    """Appends entries one after the other and proves their inclusion."""

    def __init__(self, store: Store, key: EllipticCurvePrivateKey, *, origin: str) -> None:
        self._store = store
        self._key = key
        self._origin = origin
        self._tree = Tree()
        self._known: dict[bytes, int] = {}
        self._fresh = False
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, store: Store, key: EllipticCurvePrivateKey, *, origin: str) -> "SigstoreLog":
        """Load the log of `store`. Raises LogRewritten when it is not the log that was signed last."""
        log = cls(store, key, origin=origin)
        await log._reload()
        return log

    async def append(self, entry: LogEntry, *, now: datetime) -> dict[str, Any]:
        """Log `entry` (once, however often it is sent) and return its TransparencyLogEntry in protobuf's JSON form."""
        async with self._turn:
            if not self._fresh:
                await self._reload()
            index = self._known.get(leaf_hash(entry.body))
            if index is None:
                index = await self._commit(entry, now)
            return self._prove(index, entry)

    async def _commit(self, entry: LogEntry, now: datetime) -> int:
        self._fresh = False  # until the commit is known: a failure or a cancellation reloads the tree
        index = self._tree.append(entry.body)
        leaf, root = leaf_hash(entry.body), self._tree.root().hex()

        async def work(session: AsyncSession) -> None:
            session.add(
                EntryRow(
                    index=index,
                    kind=entry.kind,
                    version=entry.version,
                    body=entry.body,
                    leaf=leaf.hex(),
                    logged_at=now,
                )
            )
            await session.merge(CheckpointRow(id=_ONLY, size=index + 1, root=root))

        await self._store.write(work)
        self._known[leaf] = index
        self._fresh = True
        return index

    async def _reload(self) -> None:
        # As a write: it comes after every commit that a cancelled append may have left under way.
        self._tree, self._known = await self._store.write(_load)
        self._fresh = True

    def _prove(self, index: int, entry: LogEntry) -> dict[str, Any]:
        size, root = self._tree.size, self._tree.root()
        proof = {
            "logIndex": str(index),
            "rootHash": _base64(root),
            "treeSize": str(size),
            "hashes": [_base64(each) for each in self._tree.inclusion(index, size)],
            "checkpoint": {"envelope": sign_checkpoint(self._origin, size, root, self._key)},
        }
        return {
            "logIndex": str(index),
            "logId": {"keyId": _base64(key_id(self._key.public_key()))},
            "kindVersion": {"kind": entry.kind, "version": entry.version},
            "inclusionProof": proof,
            "canonicalizedBody": _base64(entry.body),
        }


async def _load(session: AsyncSession) -> tuple[Tree, dict[bytes, int]]:
    tree, known = Tree(), dict[bytes, int]()
    rows = await session.execute(select(EntryRow.index, EntryRow.body).order_by(EntryRow.index))
    for index, body in rows:
        if tree.append(body) != index:
            raise LogRewritten(f"entry {tree.size - 1} of the log is missing")
        known[leaf_hash(body)] = index
    signed = await session.get(CheckpointRow, _ONLY)
    size, root = (0, tree.root().hex()) if signed is None else (signed.size, signed.root)
    if tree.size != size or tree.root().hex() != root:
        raise LogRewritten(
            f"the log holds {tree.size} entries and its last signed root is over {size}, or differs",
            advice="Restore the whole database from one backup.",
        )
    return tree, known


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
