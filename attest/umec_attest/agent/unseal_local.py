"""A secret that this TPM opens without any site: in states that the owner approved, and in no older ones.

What is sealed lies in the state directory, one file a secret, and is worth nothing to another TPM. Its policy names the
owner's key and the image, and no state: an approval (`umec_attest.sealed.approvals`) comes with each image, and a new
one opens what was sealed before. Once a newer image runs well, the TPM's counter shuts the older ones out.

This code checks an approval first, to say what is wrong with it; the TPM checks it anyway.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.fields import FieldInvalid, read_object
from umec_attest.agent.image_owner import ImageOwner, approval_for, check_state
from umec_attest.agent.state import NODE, prepare_directory, read_key, shown_key
from umec_attest.agent.tpm import Tpm, WrappedKey
from umec_attest.agent.tpm.sealing import advance_counter, counter_value, seal, unseal
from umec_attest.errors import ApprovalInvalid
from umec_attest.sealed import MAX_OWNER, Approval, OwnerKey, check_secret, load_owner, owner_public
from umec_core.keys import read_private, write_private

__all__ = ["SealedFile", "load_sealed", "seal_locally", "shut_out_older", "unseal_locally"]

FOLDER: Final = "sealed"
FORMAT: Final = 1
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class SealedFile:
    """What was sealed, for which image, and under which owner (PEM)."""

    image: str
    owner: str
    key: WrappedKey


def seal_locally(tpm: Tpm, directory: Path, name: str, secret: bytes, *, image: str, owner: OwnerKey) -> Path:
    """Seal a secret to this TPM, for states of `image` that `owner` approves; returns its file.

    Raises AgentStateInvalid (there is one of this name), SecretSize, TpmUnavailable, TpmRefused.
    """
    check_secret(secret)
    path = _path(directory, name)
    if path.exists():
        raise AgentStateInvalid(f"{path} exists already", advice="remove it, if nothing needs it any more")
    if NODE.fullmatch(image) is None:
        raise ApprovalInvalid("an image's name has small letters, digits and dashes")
    policy = ImageOwner(owner, image).policy
    sealed = tpm.do(lambda esys: seal(esys, secret, policy))
    tpm.do(counter_value)  # it is there before the first approval asks for it
    members = {
        "format": FORMAT,
        "image": image,
        "owner": owner.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "key": shown_key(sealed),
    }
    prepare_directory(path.parent)
    write_private(path, json.dumps(members, indent=1).encode() + b"\n")
    return path


def unseal_locally(tpm: Tpm, directory: Path, name: str, approval: bytes) -> bytes:
    """Return a sealed secret, by an approval of the state that this TPM has measured.

    Raises AgentStateInvalid, ApprovalInvalid, ApprovalSignature, ApprovalOutdated, ApprovalPcrs, TpmUnavailable,
    TpmRefused.
    """
    return _opened(tpm, directory, name, approval)[0]


def shut_out_older(tpm: Tpm, directory: Path, name: str, approval: bytes) -> int:
    """Let approvals of older versions open nothing any more; returns the counter. Raises as `unseal_locally` does.

    Only by an approval that opens the secret now: what does not run cannot lock out what did.
    """
    version = _opened(tpm, directory, name, approval)[1].version
    return tpm.do(lambda esys: advance_counter(esys, version))


def load_sealed(directory: Path, name: str) -> SealedFile:
    """Read what was sealed. Raises AgentStateInvalid, and `key-file-exposed` when others may read it."""
    path = _path(directory, name)
    if not path.exists():
        raise AgentStateInvalid(f"nothing was sealed as {name} here", advice="umec node seal")
    try:
        fields = read_object(read_private(path))
        fields.integer("format", least=FORMAT, most=FORMAT)
        read = SealedFile(
            fields.text("image", longest=63, pattern=NODE),
            fields.text("owner", longest=MAX_OWNER),
            read_key(fields.inside("key")),
        )
        fields.end()
    except FieldInvalid as error:
        raise AgentStateInvalid(f"{path} is not what was sealed, see: {error.place}") from error
    return read


def _opened(tpm: Tpm, directory: Path, name: str, data: bytes) -> tuple[bytes, Approval]:
    sealed = load_sealed(directory, name)
    owner = ImageOwner(load_owner(sealed.owner.encode()), sealed.image)
    approval = approval_for(owner, data)
    check_state(tpm, approval)
    public = owner_public(owner.key).to_bytes()
    return tpm.do(lambda esys: unseal(esys, sealed.key, approval, public)), approval


def _path(directory: Path, name: str) -> Path:
    if NAME.fullmatch(name) is None:
        raise AgentStateInvalid("a secret's name has small letters, digits and dashes")
    return directory / FOLDER / f"{name}.json"
