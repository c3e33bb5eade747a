"""Keys that the node had before, kept for a verifier whose database was restored to a time before a rotation.

Such a verifier knows keys that the node replaced since, and no others. No network, thief or other TPM gains by them:
this TPM alone uses them, and whether they count is for the verifier to say.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.fields import FieldInvalid, Fields, read_object
from umec_attest.agent.state import FORMER_KEYS_FILE, NodeState, read_key, save_state, shown_key
from umec_attest.agent.tpm import WrappedKey
from umec_core.keys import read_private, write_private

__all__ = ["KEYS_UNKNOWN", "exchange_keys", "former_states"]

KEYS_UNKNOWN: Final = "quote-signer-mismatch"
"""The refusal that says that the verifier knows another AK."""
FORMAT: Final = 1
KEPT: Final = timedelta(days=30)
"""Since the keys were replaced: a copy of the database that is no older than this knows the present keys or these."""
MOST: Final = 8
"""Pairs of keys; each costs a quote and a request in every round in which the verifier knows none of them."""


@dataclass(frozen=True, slots=True)
class _FormerKeys:
    """Keys that the node had from `since` to `until`."""

    ak: WrappedKey
    node_key: WrappedKey
    since: datetime
    until: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "ak": shown_key(self.ak),
            "node_key": shown_key(self.node_key),
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
        }

    @classmethod
    def read(cls, fields: Fields) -> Self:
        keys = cls(
            read_key(fields.inside("ak")),
            read_key(fields.inside("node_key")),
            fields.instant("since"),
            fields.instant("until"),
        )
        fields.end()
        return keys


def former_states(directory: Path, state: NodeState, now: datetime) -> list[NodeState]:
    """Return the state with each pair of keys that the node had in the last 30 days, the newest first.

    Raises AgentStateInvalid.
    """
    kept = _kept(directory, state, now)
    return [replace(state, ak=keys.ak, node_key=keys.node_key, keys_since=keys.since) for keys in kept]


def exchange_keys(directory: Path, present: NodeState, other: NodeState, now: datetime) -> None:
    """Write the state with other keys, after the present ones were put among the former. Raises AgentStateInvalid."""
    replaced = _FormerKeys(present.ak, present.node_key, present.keys_since, now)
    kept = [replaced, *_kept(directory, present, now)]
    _write(directory, [keys for keys in kept if keys.ak != other.ak][:MOST])
    save_state(directory, other)


def _kept(directory: Path, state: NodeState, now: datetime) -> list[_FormerKeys]:
    path = directory / FORMER_KEYS_FILE
    if not path.exists():
        return []
    try:
        fields = read_object(read_private(path))
        fields.integer("format", least=FORMAT, most=FORMAT)
        found = [_FormerKeys.read(one) for one in fields.objects("former")]
        fields.end()
    except FieldInvalid as error:
        raise AgentStateInvalid(f"{path} holds no keys", advice=f"remove {path}") from error
    return [keys for keys in found if keys.ak != state.ak and now - keys.until < KEPT]


def _write(directory: Path, kept: Sequence[_FormerKeys]) -> None:
    members = {"format": FORMAT, "former": [keys.to_json() for keys in kept]}
    write_private(directory / FORMER_KEYS_FILE, json.dumps(members, indent=1).encode() + b"\n")
