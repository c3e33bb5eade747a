"""What an enrolled node keeps: one file of mode 0600 in a directory of mode 0700. The TPM wraps the keys in it."""

import os
import stat
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Base64Encoder, BaseModel, ConfigDict, EncodedBytes, Field, ValidationError

from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.tpm import WrappedKey
from umec_core.keys import EXPOSED, read_private, write_private

__all__ = ["NodeState", "StoredKey", "load_state", "prepare_directory", "save_state", "state_exists"]

STATE_FILE: Final = "node.json"
DIRECTORY_MODE: Final = 0o700


class _Plain(Base64Encoder):
    """Base64 without the line breaks that pydantic's own encoder puts in."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return super().encode(value).replace(b"\n", b"")


Blob = Annotated[bytes, EncodedBytes(encoder=_Plain)]


class StoredKey(BaseModel):
    """A wrapped key: TPMT_PUBLIC and the buffer of a TPM2B_PRIVATE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    public: Blob
    private: Blob

    @classmethod
    def of(cls, key: WrappedKey) -> "StoredKey":
        """Return a key in the form of the file."""
        return cls.model_construct(public=key.public, private=key.private)

    def wrapped(self) -> WrappedKey:
        """Return the key as the TPM takes it."""
        return WrappedKey(self.public, self.private)


class NodeState(BaseModel):
    """Who the node is, where its platform is, which TPM holds its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    node: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    url: Annotated[str, Field(pattern=r"^https://[^/?#\s@]+$")]
    ca: str
    tcti: str
    ek_public: Blob
    ak: StoredKey
    node_key: StoredKey


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
    write_private(directory / STATE_FILE, state.model_dump_json(indent=1).encode() + b"\n")


def load_state(directory: Path) -> NodeState:
    """Read the state. Raises AgentStateInvalid, and `key-file-exposed` when others may read it."""
    path = directory / STATE_FILE
    if not path.exists():
        raise AgentStateInvalid(f"no node was enrolled with {directory}", advice="umec node enroll")
    _check_mode(directory)
    try:
        return NodeState.model_validate_json(read_private(path))
    except ValidationError as error:
        raise AgentStateInvalid(f"{path} is not the state of a node", advice="enroll the node again") from error


def _check_mode(directory: Path) -> None:
    found = os.stat(directory)  # noqa: PTH116 - one call for owner and mode
    if found.st_uid != os.geteuid() or found.st_mode & EXPOSED:
        raise AgentStateInvalid(
            f"{directory} has mode {stat.S_IMODE(found.st_mode):04o} and owner {found.st_uid}, "
            f"expected 0700 and {os.geteuid()}",
            advice=f"chmod 700 {directory}",
        )
