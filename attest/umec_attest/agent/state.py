"""What an enrolled node keeps: one file of mode 0600 in a directory of mode 0700. The TPM wraps the keys in it."""

import base64
import json
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.fields import FieldInvalid, Fields, read_object
from umec_attest.agent.tpm import WrappedKey
from umec_core.keys import EXPOSED, read_private, write_private

__all__ = [
    "FORMER_KEYS_FILE",
    "LOG_FILE",
    "NEXT_KEYS_FILE",
    "NODE",
    "URL",
    "NodeState",
    "begin_anew",
    "load_state",
    "prepare_directory",
    "read_key",
    "save_state",
    "shown_key",
    "state_exists",
]

STATE_FILE: Final = "node.json"
NEXT_KEYS_FILE: Final = "next-keys.json"
FORMER_KEYS_FILE: Final = "former-keys.json"
LOG_FILE: Final = "log.json"
DIRECTORY_MODE: Final = 0o700
FORMAT: Final = 1
MAX_KEY: Final = 4096
MAX_CA: Final = 64 * 1024
NODE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
URL: Final = re.compile(r"https://[^/?#\s@]+")


@dataclass(frozen=True, slots=True)
class NodeState:
    """Who the node is, where its platform is, which TPM holds its keys, and since when it has these keys."""

    node: str
    url: str
    ca: str
    tcti: str
    ek_public: bytes
    ak: WrappedKey
    node_key: WrappedKey
    keys_since: datetime

    def to_json(self) -> bytes:
        """Return the content of the file."""
        members = {
            "format": FORMAT,
            "node": self.node,
            "url": self.url,
            "ca": self.ca,
            "tcti": self.tcti,
            "ek_public": base64.b64encode(self.ek_public).decode(),
            "ak": shown_key(self.ak),
            "node_key": shown_key(self.node_key),
            "keys_since": self.keys_since.isoformat(),
        }
        return json.dumps(members, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, written: datetime) -> "NodeState":
        """Read what `to_json` wrote; a file without `keys_since` has keys as old as itself. Raises FieldInvalid."""
        fields = read_object(data)
        fields.integer("format", least=FORMAT, most=FORMAT)
        state = cls(
            node=fields.text("node", longest=63, pattern=NODE),
            url=fields.text("url", longest=512, pattern=URL),
            ca=fields.text("ca", longest=MAX_CA),
            tcti=fields.text("tcti", longest=512),
            ek_public=fields.octets("ek_public", least=1, most=MAX_KEY),
            ak=read_key(fields.inside("ak")),
            node_key=read_key(fields.inside("node_key")),
            keys_since=fields.optional("keys_since", fields.instant) or written,
        )
        fields.end()
        return state


def shown_key(key: WrappedKey) -> dict[str, Any]:
    """Return a wrapped key as files have it: TPMT_PUBLIC and the buffer of a TPM2B_PRIVATE in base64."""
    return {
        "public": base64.b64encode(key.public).decode(),
        "private": base64.b64encode(key.private).decode(),
    }


def read_key(fields: Fields) -> WrappedKey:
    """Read what `shown_key` wrote. Raises FieldInvalid."""
    key = WrappedKey(fields.octets("public", least=1, most=MAX_KEY), fields.octets("private", least=1, most=MAX_KEY))
    fields.end()
    return key


def prepare_directory(directory: Path) -> None:
    """Make the state directory with mode 0700, or check that nobody else can look into it. Raises AgentStateInvalid."""
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    _check_mode(directory)


def state_exists(directory: Path) -> bool:
    """Tell whether a node was enrolled with this directory."""
    return (directory / STATE_FILE).exists()


def save_state(directory: Path, state: NodeState) -> None:
    """Write the state so that a power cut leaves the old or the new one."""
    prepare_directory(directory)
    write_private(directory / STATE_FILE, state.to_json())


def begin_anew(directory: Path, state: NodeState) -> None:
    """Write the state of a new enrolment: other keys, and what was seen of a log, belong to an older one."""
    for name in (NEXT_KEYS_FILE, FORMER_KEYS_FILE, LOG_FILE):
        (directory / name).unlink(missing_ok=True)
    save_state(directory, state)


def load_state(directory: Path) -> NodeState:
    """Read the state. Raises AgentStateInvalid, and `key-file-exposed` when others may read it."""
    path = directory / STATE_FILE
    if not path.exists():
        raise AgentStateInvalid(f"no node was enrolled with {directory}", advice="umec node enroll")
    _check_mode(directory)
    try:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return NodeState.from_json(read_private(path), written=written)
    except FieldInvalid as error:
        raise AgentStateInvalid(f"{path} is not the state of a node", advice="enroll the node again") from error


def _check_mode(directory: Path) -> None:
    found = os.stat(directory)  # noqa: PTH116 - one call for owner and mode
    if found.st_uid != os.geteuid() or found.st_mode & EXPOSED:
        raise AgentStateInvalid(
            f"{directory} has mode {stat.S_IMODE(found.st_mode):04o} and owner {found.st_uid}, "
            f"expected 0700 and {os.geteuid()}",
            advice=f"chmod 700 {directory}",
        )
