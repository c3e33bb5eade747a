"""`umec client`: OAuth 2.0 clients of the authorization server: tenants, builders, applications outside of a node."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from umec_platform.cli.output import emit, refusals

__all__ = ["app"]

app = typer.Typer()

CredentialFile = Annotated[
    Path, typer.Option("--credential", envvar="UMEC_CREDENTIAL", help="The operator's credential file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
@refusals
def add(
    client_id: Annotated[str, typer.Argument(help="The new client's name: lower-case letters, digits and hyphens.")],
    credential: CredentialFile,
    out: Annotated[Path, typer.Option(help="Where to write the new client's credential file (mode 0600).")],
    kind: Annotated[str, typer.Option(help="application, builder, service or operator.")] = "application",
    tenant: Annotated[str | None, typer.Option(help="The tenant it belongs to.")] = None,
    node: Annotated[str | None, typer.Option(help="The node that must stand well for it to get tokens.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope that it may have; repeat it for more.")] = None,
    resource: Annotated[list[str] | None, typer.Option(help="A resource it may name; repeat it for more.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, register its public half, and write the credential file. The private half stays on this machine."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from umec_core.client import Credential, save_credential
    from umec_core.jose import public_jwk
    from umec_platform.cli.remote import connected

    key = ec.generate_private_key(ec.SECP256R1())
    registration: dict[str, Any] = {
        "client_id": client_id,
        "kind": kind,
        "tenant": tenant,
        "node": node,
        "jwks": {"keys": [public_jwk(key)]},
        "scopes": scope or [],
        "resources": resource or [],
        "binding": "dpop",
    }
    wanted = {name: value for name, value in registration.items() if value is not None}

    async def register() -> Credential:
        async with connected(credential) as client:
            identity = f"{client.credential.issuer}/identity/v1"
            scopes = ("identity:clients",)
            await client.request("POST", f"{identity}/clients", resource=identity, scopes=scopes, json=wanted)
            return client.credential

    site = asyncio.run(register())
    save_credential(out, Credential.of(issuer=site.issuer, client_id=client_id, key=key, ca=site.ca))
    human = f"{client_id} is registered; its credential is {out}"
    emit({"client_id": client_id, "credential": str(out)}, as_json=as_json, human=human)


@app.command()
@refusals
def remove(
    client_id: Annotated[str, typer.Argument(help="The client to remove.")],
    credential: CredentialFile,
    as_json: AsJson = False,
) -> None:
    """Remove a client: it gets no more tokens."""
    from umec_platform.cli.remote import connected

    async def unregister() -> None:
        async with connected(credential) as client:
            identity = f"{client.credential.issuer}/identity/v1"
            scopes = ("identity:clients",)
            await client.request("DELETE", f"{identity}/clients/{client_id}", resource=identity, scopes=scopes)

    asyncio.run(unregister())
    emit({"client_id": client_id, "removed": True}, as_json=as_json, human=f"{client_id} is removed")
