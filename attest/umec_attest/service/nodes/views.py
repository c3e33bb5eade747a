"""A node as operators see it."""

import json
from datetime import datetime
from typing import Any

from umec_attest.floors import VersionFloor
from umec_attest.node_binding import is_bound
from umec_attest.resets import ResetWatch
from umec_attest.service.tables import NodeRow
from umec_attest.service.wire import instant
from umec_attest.tpm.public import parse_public

__all__ = ["last_round", "view"]


def view(node: NodeRow) -> dict[str, Any]:
    """Return what lists and decisions show of a node; `version` is the one of its image that it stood on last."""
    watch, floor = ResetWatch.from_json(node.reset_watch), VersionFloor.from_json(node.version_floor)
    return {
        "node": node.id,
        "tenant": node.tenant,
        "image": node.image,
        "version": floor.version or None if floor.image == node.image else None,
        "version_floor": floor.floor if floor.image == node.image else 0,
        "class": node.node_class,
        "standing": node.standing,
        "generation": node.generation,
        "reason": node.reason,
        "approved": node.approved,
        "ek_sha256": node.ek_sha256,
        "node_key_bound": is_bound(parse_public(node.node_key_public)),
        "changed_at": instant(node.changed_at),
        "enrolled_at": instant(node.enrolled_at),
        "rounds": node.rounds,
        "deadline": _when(node.deadline),
        "reset_unannounced": watch.unannounced is not None,
        "reboot_announced_until": _when(watch.deadline),
    }


def last_round(node: NodeRow) -> dict[str, Any] | None:
    """Return what the last judged round said, with its time and its evidence."""
    if node.last_round is None:
        return None
    said: dict[str, Any] = json.loads(node.last_round)
    if node.round_at is None:  # of a verifier before this one: it has its time within
        return said
    return {"at": instant(node.round_at), **said, "evidence_sha256": node.evidence_sha256}


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else instant(moment)
