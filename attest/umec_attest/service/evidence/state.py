"""A node as a round sees it: the columns that rounds need, as plain values, read for many nodes by one query."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, inspect, select

from umec_attest.service.tables import NodeRow

__all__ = ["NodeState", "read_states"]


@dataclass(frozen=True, slots=True)
class NodeState:
    """The columns of `NodeRow` with these names, as they were at one moment."""

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
    runtime_checkpoint: str | None
    last_round: str | None
    result: str | None
    result_basis: str | None
    result_expires_at: datetime | None


_TABLE: Final = inspect(NodeRow).columns
_QUERY: Final = select(*(_TABLE[field.name] for field in fields(NodeState))).where(
    _TABLE["id"].in_(bindparam("nodes", expanding=True))
)
_LOCKED: Final = _QUERY.order_by(_TABLE["id"]).with_for_update()


def read_states(connection: Connection, nodes: Collection[str], *, lock: bool = False) -> Mapping[str, NodeState]:
    """Return the nodes that there are, by id. `lock` keeps them as they are until the transaction ends.

    All lock in one order, so that no two transactions wait for each other.
    """
    rows = connection.execute(_LOCKED if lock else _QUERY, {"nodes": sorted(nodes)})
    return {row[0]: NodeState(*row) for row in rows}
