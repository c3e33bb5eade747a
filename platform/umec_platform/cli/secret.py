"""`umec secret`: what the verifier keeps for nodes, and which states of an image open what nodes sealed themselves."""

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from umec_core.errors import Invalid
from umec_platform.cli.files import read_file, read_object
from umec_platform.cli.node.parameters import Credential, Json, Node
from umec_platform.cli.output import emit, refusals
from umec_platform.cli.signing import ELSEWHERE, load_owner_key

__all__ = ["app"]

app = typer.Typer()

DEFAULT_PCRS: tuple[int, ...] = (4, 7, 11)
"""What was booted, whose signatures count, and what is in the unified kernel image."""

Name = Annotated[str, typer.Argument(help="The name of the secret.")]


@app.command("set")
@refusals
def store(
    node: Node,
    name: Name,
    secret: Annotated[Path, typer.Option("--from", help="The secret: 16 to 128 bytes, as they are.")],
    credential: Credential,
    degraded: Annotated[bool, typer.Option("--degraded", help="A node that is only degraded gets it, too.")] = False,
    as_json: Json = False,
) -> None:
    """Give the verifier a secret of a node. Nobody reads it there again; the node's TPM opens it."""
    body = {"secret": base64.b64encode(read_file(secret)).decode(), "degraded": degraded}
    said = _operate(credential, "PUT", f"nodes/{node}/secrets/{name}", "attest:admin", body)
    emit(said, as_json=as_json, human=f"{node} has {name}, version {said['version']}")


@app.command("list")
@refusals
def show(node: Node, credential: Credential, as_json: Json = False) -> None:
    """List the secrets of a node, and when each was released last; never what they say."""
    said = _operate(credential, "GET", f"nodes/{node}/secrets", "attest:read")
    rows = [
        f"{row['name']:<24} version {row['version']}, released {row['releases']} times, {row['released_at'] or 'never'}"
        for row in said["secrets"]
    ]
    emit(said, as_json=as_json, human="\n".join(rows) if rows else "no secrets")


@app.command()
@refusals
def remove(node: Node, name: Name, credential: Credential, as_json: Json = False) -> None:
    """Forget a secret of a node; what was released of it is not called back."""
    said = _operate(credential, "DELETE", f"nodes/{node}/secrets/{name}", "attest:admin")
    emit(said, as_json=as_json, human=f"{node} has no {name} any more")


@app.command()
@refusals
def approve(
    image: Annotated[str, typer.Option(help="The node image.")],
    version: Annotated[
        int, typer.Option(min=1, help="Rises only to shut older images out: each node counts up to it.")
    ],
    predicted: Annotated[Path, typer.Option(help="What `umec nodeimage predict --json` printed.")],
    key: Annotated[str, typer.Option(help=f"The owner's private key (PEM, 0600: P-256, P-384 or RSA), {ELSEWHERE}.")],
    out: Annotated[Path, typer.Option(help="Where the approval goes.")],
    pcr: Annotated[
        list[int] | None, typer.Option(help="A PCR that has to be as predicted; by default 4, 7, 11.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Approve a state of a node image: it opens, without any site, what nodes sealed for this image and owner."""
    from umec_attest.digests import parse_pcr_values
    from umec_attest.sealed import sign_approval
    from umec_attest.tpm.algorithms import HashAlgorithm

    values = parse_pcr_values(read_object(predicted).get("pcrs")).get(HashAlgorithm.SHA256, {})
    chosen = tuple(pcr or DEFAULT_PCRS)
    missing = [index for index in chosen if index not in values]
    if missing:
        raise Invalid(f"{predicted} predicts nothing for PCR {', '.join(map(str, missing))}")
    approval = sign_approval(
        image=image, version=version, pcrs={index: values[index] for index in chosen}, key=load_owner_key(key)
    )
    out.write_bytes(approval)
    said = {"image": image, "version": version, "pcrs": sorted(chosen), "file": str(out)}
    emit(said, as_json=as_json, human=f"{image} version {version} is approved: {out}")


def _operate(
    credential: Path, method: str, path: str, scope: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    from umec_platform.cli.remote import connected

    async def send() -> dict[str, Any]:
        async with connected(credential) as client:
            base = f"{client.credential.issuer}/attest/v1"
            answer = await client.request(method, f"{base}/{path}", resource=base, scopes=(scope,), json=body)
            return dict(answer.json())

    return asyncio.run(send())
