"""A node as a round sees it: the columns that rounds need, as plain values, read for many nodes by one query."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, inspect, select
from sqlalchemy.orm import aliased

from umec_attest.service.references.filed import Identity
from umec_attest.service.tables import NodeRow, ReferenceRow
from umec_core.store import Store

__all__ = ["NodeState", "Seen", "look_at", "read_states"]


class NodeState(NamedTuple):
    """The columns of `NodeRow` with these names, as they were at one moment (a tuple: a round makes several)."""

    id: str
    tenant: str | None
    image: str | None
    node_class: str
    reset_watch: str | None
    approved: bool
    ek_public: bytes
    ak_public: bytes
    node_key_public: bytes
    standing: str
    generation: int
    rounds: int
    answered: bytes | None
    clock_state: str | None
    fell_at_reset: int | None
    boot_log_sha256: str | None
    boot_log_reset: int | None
    version_floor: str | None
    runtime_checkpoint: str | None
    start_checkpoint: str | None
    last_round: str | None
    result: str | None
    result_basis: str | None
    result_expires_at: datetime | None


class Seen(NamedTuple):
    """A node, and the identity of the newest reference set of its image (None: there is none)."""

    node: NodeState
    reference: Identity | None


_TABLE: Final = inspect(NodeRow).columns
_COLUMNS: Final = tuple(_TABLE[name] for name in NodeState._fields)
_QUERY: Final = select(*_COLUMNS).where(_TABLE["id"].in_(bindparam("keys", expanding=True)))
_LOCKED: Final = _QUERY.order_by(_TABLE["id"]).with_for_update()

_OTHER: Final = aliased(ReferenceRow)
_NEWEST: Final = select(func.max(_OTHER.version)).where(_OTHER.image == _TABLE["image"]).scalar_subquery()
_SEEN: Final = (
    select(*_COLUMNS, ReferenceRow.version, ReferenceRow.sha256, ReferenceRow.shortened)
    .outerjoin_from(NodeRow, ReferenceRow, (ReferenceRow.image == _TABLE["image"]) & (ReferenceRow.version == _NEWEST))
    .where(_TABLE["id"].in_(bindparam("keys", expanding=True)))
)


async def look_at(store: Store, nodes: Collection[str]) -> Mapping[str, Seen]:
    """Return those of these nodes that there are, by id, each as it is at one moment."""
    seen = {}
    for *columns, version, sha256, shortened in await store.rows(_SEEN, nodes):
        node = NodeState(*columns)
        seen[node.id] = Seen(node, None if version is None else Identity(version, sha256, shortened))
    return seen


def read_states(connection: Connection, nodes: Collection[str], *, lock: bool = False) -> Mapping[str, NodeState]:
    """Return the nodes that there are, by id. `lock` keeps them as they are until the transaction ends.

    All lock in one order, so that no two transactions wait for each other.
    """
    rows = connection.execute(_LOCKED if lock else _QUERY, {"keys": sorted(nodes)})
    return {row[0]: NodeState(*row) for row in rows}
