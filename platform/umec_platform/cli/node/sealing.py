"""Secrets on a node: what the site keeps for it, and what its own TPM opens in states that the owner approved."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from umec_core.errors import Invalid
from umec_platform.cli.files import read_file
from umec_platform.cli.node.parameters import BOOT_LOG, RUNTIME_LIST, BootLog, Json, OwnTcti, RuntimeList, State
from umec_platform.cli.output import emit, refusals

__all__ = ["seal", "unseal"]

STANDARD: str = "-"
Name = Annotated[str, typer.Argument(help="The name of the secret.")]


@refusals
def seal(
    name: Name,
    state: State,
    secret: Annotated[Path, typer.Option("--from", help="The secret: 16 to 128 bytes, as they are.")],
    owner: Annotated[Path, typer.Option(help="The owner's public key (PEM): who approves states of the image.")],
    image: Annotated[str, typer.Option(help="The node image whose approved states open it.")],
    tcti: OwnTcti = None,
    as_json: Json = False,
) -> None:
    """Seal a secret to this TPM: later boots open it by an approval that the owner signed, without any site."""
    from umec_attest.agent.state import load_state
    from umec_attest.agent.tpm import Tpm
    from umec_attest.agent.unseal_local import seal_locally
    from umec_attest.sealed import load_owner

    stored, key = load_state(state), load_owner(read_file(owner))
    with Tpm(tcti if tcti is not None else stored.tcti) as tpm:
        path = seal_locally(tpm, state, name, read_file(secret), image=image, owner=key)
    said = {"name": name, "image": image, "file": str(path)}
    emit(said, as_json=as_json, human=f"{name} is sealed for {image}: {path}")


@refusals
def unseal(
    name: Name,
    state: State,
    out: Annotated[Path, typer.Option(help="Where the secret goes (0600), or - for standard output.")],
    approval: Annotated[
        Path | None, typer.Option(help="Open what `seal` sealed here, by this approval; else ask the verifier.")
    ] = None,
    shut_out_older: Annotated[
        bool, typer.Option("--shut-out-older", help="Let approvals of older versions open nothing any more.")
    ] = False,
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    tcti: OwnTcti = None,
    as_json: Json = False,
) -> None:
    """Open a secret of this node: the verifier releases it to a node in good standing, for this TPM and this boot.

    With --approval no site is asked: the TPM opens what it sealed, if the owner approved the state that it measured.
    """
    from umec_attest.agent.state import load_state
    from umec_attest.agent.tpm import Tpm
    from umec_attest.agent.unseal import unseal_from_site
    from umec_attest.agent.unseal_local import shut_out_older as shut_out
    from umec_attest.agent.unseal_local import unseal_locally
    from umec_core.keys import write_private

    if shut_out_older and approval is None:
        raise Invalid("--shut-out-older goes with --approval")
    if as_json and str(out) == STANDARD:
        raise Invalid("--json and the secret do not both fit on standard output")
    stored = load_state(state)
    with Tpm(tcti if tcti is not None else stored.tcti) as tpm:
        if approval is None:
            secret = asyncio.run(unseal_from_site(state, tpm, name, boot_log=boot_log, runtime_list=runtime_list))
        else:
            signed = read_file(approval)
            secret = unseal_locally(tpm, state, name, signed)
            if shut_out_older:
                shut_out(tpm, state, name, signed)
    if str(out) == STANDARD:
        sys.stdout.buffer.write(secret)
        sys.stdout.buffer.flush()
        return
    write_private(out, secret)
    emit({"name": name, "bytes": len(secret), "file": str(out)}, as_json=as_json, human=f"{name}: {out}")
