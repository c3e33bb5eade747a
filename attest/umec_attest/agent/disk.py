"""`python -m umec_attest.agent.disk`: the key of a node's data partition, which this TPM alone opens.

    seal   make a key and seal it; both go to standard output, a line each: the key in hex, and the token that holds it
    open   read a token from standard input, and zeros behind it; the key goes to standard output, in hex

The key opens in states of this image that its owner approved (`umec_attest.agent.image_owner`), and was sealed in one.
It is in no file: the kernel gets it through pipes (`guest/unlock.sh`). The token is all that is read of the disk before
the data are: how they are encrypted follows from `FORMAT`, and nothing that the disk says changes that. The token is
not believed either: owner and image are those of what runs, and it counts only where this TPM made it while it had
measured what the owner had approved then. So a file system of somebody who had disk and box in hand is not opened, even
where they use the TPM.

This runs as the agent does, not as root: it reads what whoever holds the disk wrote. Its exit status is 1 where the
partition stays closed, and it says on standard error why, as the agent says things on the console.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from umec_attest.agent.errors import DataTokenInvalid
from umec_attest.agent.fields import FieldInvalid, read_object
from umec_attest.agent.image_owner import (
    APPROVAL,
    OWNER,
    RELEASE,
    ImageOwner,
    approval_for,
    check_state,
    read_approval,
    read_owner,
)
from umec_attest.agent.state import read_key, shown_key
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.sealing import Created, check_created, create_sealed, unseal
from umec_attest.sealed import owner_public
from umec_core.errors import UmecError

__all__ = ["main", "open_key", "parse_token", "render_token", "seal_key"]

TCTI: Final = "device:/dev/tpmrm0"
KIND: Final = "umec-data"
FORMAT: Final = 1
"""AES-256-XTS (`aes-xts-plain64`) in sectors of 4096 bytes, numbered as those of 512 bytes are (`guest/unlock.sh`)."""
KEY_SIZE: Final = 64
"""Bytes: both keys of XTS."""
MAX_TOKEN: Final = 32 * 1024
"""Bytes of its place on the partition. An approval, of which it has a copy, has some 3 KB."""
MAX_PART: Final = 4096


def seal_key(tpm: Tpm, owner: ImageOwner, approval: bytes) -> tuple[bytes, bytes]:
    """Make a key and seal it, in a state that `approval` approves; returns the key and its token.

    Raises ApprovalInvalid, ApprovalSignature, ApprovalOutdated, ApprovalPcrs, DataTokenInvalid, TpmUnavailable,
    TpmRefused.
    """
    approved = approval_for(owner, approval)
    check_state(tpm, approved)
    key = secrets.token_bytes(KEY_SIZE)
    created = tpm.do(lambda esys: create_sealed(esys, key, owner.policy, sorted(approved.pcrs)))
    return key, render_token(created, approval)


def open_key(tpm: Tpm, owner: ImageOwner, approval: bytes, token: bytes) -> bytes:
    """Return the key of a token, by the approval of what runs.

    Raises DataTokenInvalid, ApprovalInvalid, ApprovalSignature, ApprovalOutdated, ApprovalPcrs, SealedElsewhere,
    TpmUnavailable, TpmRefused.
    """
    approved = approval_for(owner, approval)
    check_state(tpm, approved)
    created, then = parse_token(token)
    sealed_in, public = approval_for(owner, then), owner_public(owner.key).to_bytes()
    tpm.do(lambda esys: check_created(esys, created, sealed_in.pcrs))
    key = tpm.do(lambda esys: unseal(esys, created.key, approved, public))
    if len(key) != KEY_SIZE:
        raise DataTokenInvalid(f"what this TPM sealed is no key of {KEY_SIZE} bytes")
    return key


def render_token(created: Created, approval: bytes) -> bytes:
    """Return a token: what was sealed, in which state, and who approved that. Raises DataTokenInvalid."""
    members = {
        "type": KIND,
        "format": FORMAT,
        "sealed": shown_key(created.key),
        "creation": created.creation.hex(),
        "ticket": created.ticket.hex(),
        "approval": approval.decode("ascii"),
    }
    token = json.dumps(members).encode() + b"\n"
    if len(token) > MAX_TOKEN:
        raise DataTokenInvalid(f"a token has at most {MAX_TOKEN} bytes: the approval is too long")
    return token


def parse_token(data: bytes) -> tuple[Created, bytes]:
    """Return what a token says was sealed, and the approval by which. Raises DataTokenInvalid."""
    try:
        fields = read_object(data if len(data) <= MAX_TOKEN else b"")
        fields.one_of("type", {KIND: True})
        fields.integer("format", least=FORMAT, most=FORMAT)
        key = read_key(fields.inside("sealed"))
        creation = fields.hexadecimal("creation", most=MAX_PART)
        ticket = fields.hexadecimal("ticket", most=MAX_PART)
        approval = fields.text("approval", longest=MAX_TOKEN)
        fields.end()
        return Created(key, creation, ticket), approval.encode("ascii")
    except (FieldInvalid, UnicodeEncodeError) as error:
        raise DataTokenInvalid("the data partition holds no token that this node made") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked, and return the exit status."""
    parser = argparse.ArgumentParser(prog="umec-node-disk", description=__doc__)
    parser.add_argument("--tcti", default=TCTI)
    parser.add_argument("--owner", type=Path, default=OWNER)
    parser.add_argument("--release", type=Path, default=RELEASE)
    parser.add_argument("--approval", type=Path, default=APPROVAL)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("seal")
    commands.add_parser("open")
    given = parser.parse_args(arguments)
    try:
        owner, approval = read_owner(given.owner, given.release), read_approval(given.approval)
        with Tpm(given.tcti) as tpm:
            if given.command == "seal":
                key, token = seal_key(tpm, owner, approval)
            else:
                token = sys.stdin.buffer.read(MAX_TOKEN + 1)
                key, token = open_key(tpm, owner, approval, token.rstrip(b"\0")), b""
    except UmecError as error:
        told = {"event": "data-closed", "code": error.code, "detail": error.detail}
        sys.stderr.write(f"umec-node: {json.dumps(told, ensure_ascii=False)}\n")
        return 1
    sys.stdout.buffer.write(key.hex().encode() + b"\n" + token)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
