"""`umec host`: MEC hosts, their nodes and their netd."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from umec_platform.cli.output import emit, refusals

__all__ = ["app"]

app = typer.Typer()

CredentialFile = Annotated[
    Path, typer.Option("--credential", envvar="UMEC_CREDENTIAL", help="The client's credential file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
@refusals
def add(
    host: Annotated[str, typer.Argument(help="The host's id: lower-case letters, digits and hyphens.")],
    credential: CredentialFile,
    netd: Annotated[Path, typer.Option(help="The unix socket of the host's `umec netd`.")],
    node: Annotated[str | None, typer.Option(help="The node that is attested; the host's id if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a host."""
    from umec_platform.cli.platform_api import platform_api

    wish = {"id": host, "node": node or host, "netd": str(netd.absolute())}

    async def make() -> dict[str, Any]:
        async with platform_api(credential) as api:
            return await api.post("/platform/v1/hosts", wish)

    made = asyncio.run(make())
    human = f"host {made['id']} on node {made['node']} ({made['standing'] or 'not known to the verifier yet'})"
    emit(made, as_json=as_json, human=human)


@app.command("list")
@refusals
def list_(credential: CredentialFile, as_json: AsJson = False) -> None:
    """List all hosts with what their nodes are worth."""
    from umec_platform.cli.platform_api import listed

    hosts = asyncio.run(listed(credential, "/platform/v1/hosts"))
    human = "\n".join(f"{each['id']}  {each['node']}  {each['standing'] or 'unknown'}" for each in hosts)
    emit({"hosts": hosts}, as_json=as_json, human=human or "no hosts")
