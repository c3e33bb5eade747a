"""Other keys for the node: a new AK and a new node key, which its TPM, its present AK and the verifier agree upon.

1. The new keys are made, and kept beside the present ones.
2. The verifier gives a permit, with a secret that only this TPM can open, and only for the new AK.
3. The TPM opens it; the present AK certifies the new AK, the new AK certifies the node key and quotes.
4. The verifier takes the proof: from now on it knows the new keys only.
5. The new keys take the place of the present ones, which are kept for a while (`former_keys`).
6. What was kept beside them goes.

Whatever is interrupted goes on from 2 with the keys that were kept. Where 4 had its effect and nobody heard of it, the
verifier says so (`rotation-done`), and 5 follows. Kept keys are never thrown away before that, but where the verifier
does not have them and would not take them: they are not bound as the owner of the image wants it.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from umec_attest.agent.binding import Binding, new_node_key
from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.fields import FieldInvalid, read_object
from umec_attest.agent.former_keys import exchange_keys
from umec_attest.agent.platform_client import PlatformClient
from umec_attest.agent.state import NEXT_KEYS_FILE, NodeState, read_key, shown_key
from umec_attest.agent.tpm import Attested, Tpm, WrappedKey
from umec_attest.agent.wire import RotationPermit
from umec_attest.errors import NodeKeyPolicy, NodeKeyUnbound
from umec_core.keys import read_private, write_private
from umec_core.remote import RemoteRefused

__all__ = ["NextKeys", "load_next_keys", "rotate", "rotation_pending"]

FORMAT: Final = 1
DONE: Final = "rotation-done"
NOT_TAKEN: Final = frozenset({NodeKeyUnbound.code, NodeKeyPolicy.code})
"""What the verifier says of keys that it does not have, and takes only if it changes its mind."""


@dataclass(frozen=True, slots=True)
class NextKeys:
    """Keys that the node is to have next."""

    ak: WrappedKey
    node_key: WrappedKey


def rotation_pending(directory: Path) -> bool:
    """Tell whether a rotation was begun whose end is not known."""
    return (directory / NEXT_KEYS_FILE).exists()


def load_next_keys(directory: Path) -> NextKeys:
    """Return the keys that were kept in 1. Raises AgentStateInvalid."""
    path = directory / NEXT_KEYS_FILE
    try:
        fields = read_object(read_private(path))
        fields.integer("format", least=FORMAT, most=FORMAT)
        keys = NextKeys(read_key(fields.inside("ak")), read_key(fields.inside("node_key")))
        fields.end()
    except FieldInvalid as error:
        raise AgentStateInvalid(f"{path} holds no keys", advice="enroll the node again") from error
    return keys


async def rotate(
    directory: Path, state: NodeState, tpm: Tpm, platform: PlatformClient, *, binding: Binding | None, now: datetime
) -> NodeState:
    """Begin a rotation, or go on with one, and return the state with the new keys; the node key is bound to `binding`.

    Raises Approval…, TpmUnavailable, TpmRefused, AgentStateInvalid, RemoteRefused, RemoteUnavailable, AnswerInvalid.
    """
    if not rotation_pending(directory):
        _keep(directory, await asyncio.to_thread(_make, tpm, binding))  # 1
    keys = load_next_keys(directory)
    try:
        permit = await platform.rotate(_names(state, keys))  # 2
        proof = await asyncio.to_thread(_prove, tpm, state, keys, permit)  # 3
        await platform.prove_rotation({**_names(state, keys), **proof})  # 4
    except RemoteRefused as error:
        if error.code in NOT_TAKEN:
            (directory / NEXT_KEYS_FILE).unlink()
        if error.code != DONE:
            raise
    rotated = replace(state, ak=keys.ak, node_key=keys.node_key, keys_since=now)
    exchange_keys(directory, state, rotated, now)  # 5
    (directory / NEXT_KEYS_FILE).unlink(missing_ok=True)  # 6
    return rotated


def _make(tpm: Tpm, binding: Binding | None) -> NextKeys:
    return NextKeys(tpm.create_attestation_key(), new_node_key(tpm, binding))


def _keep(directory: Path, keys: NextKeys) -> None:
    members = {"format": FORMAT, "ak": shown_key(keys.ak), "node_key": shown_key(keys.node_key)}
    write_private(directory / NEXT_KEYS_FILE, json.dumps(members, indent=1).encode() + b"\n")


def _prove(tpm: Tpm, state: NodeState, keys: NextKeys, permit: RotationPermit) -> Mapping[str, Any]:
    secret = tpm.activate_credential(keys.ak, permit.credential_blob, permit.encrypted_secret)
    qualifying = hashlib.sha256(secret).digest()
    made = tpm.quote(keys.ak, qualifying, permit.pcrs.sha256)
    return {
        "permit": permit.permit,
        "secret": _text(secret),
        "ak_certified": _said(tpm.certify(keys.ak, state.ak, qualifying)),
        "node_key_certified": _said(tpm.certify(keys.node_key, keys.ak, qualifying)),
        "quoted": _said(made.quote),
        "pcrs": {"sha256": {str(index): value.hex() for index, value in sorted(made.pcrs.items())}},
    }


def _names(state: NodeState, keys: NextKeys) -> dict[str, Any]:
    return {"node": state.node, "ak_public": _text(keys.ak.public), "node_key_public": _text(keys.node_key.public)}


def _said(made: Attested) -> dict[str, str]:
    return {"attest": _text(made.attest), "signature": _text(made.signature)}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
