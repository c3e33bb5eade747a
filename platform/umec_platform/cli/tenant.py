"""`umec tenant`: who shares the MEC host, and what is granted to them."""

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
    tenant: Annotated[str, typer.Argument(help="The tenant's id: lower-case letters, digits and hyphens.")],
    credential: CredentialFile,
    name: Annotated[str | None, typer.Option(help="Its name; its id if left out.")] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="A prefix or address that its rules may touch; repeat it for more.")
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="A name under which its DNS rules may lie; repeat it for more. Without: ID.mec.internal."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant."""
    from umec_platform.cli.platform_api import platform_api

    wish: dict[str, Any] = {"id": tenant, "name": name or tenant, "addresses": address or []}
    if domain:
        wish["domains"] = domain

    async def make() -> dict[str, Any]:
        async with platform_api(credential) as api:
            return await api.post("/platform/v1/tenants", wish)

    made = asyncio.run(make())
    emit(made, as_json=as_json, human=f"tenant {made['id']} holds {', '.join(made['domains'] + made['addresses'])}")


@app.command("list")
@refusals
def list_(credential: CredentialFile, as_json: AsJson = False) -> None:
    """List all tenants."""
    from umec_platform.cli.platform_api import listed

    tenants = asyncio.run(listed(credential, "/platform/v1/tenants"))
    human = "\n".join(
        f"{each['id']}  {each['name']}  {' '.join(each['domains'] + each['addresses'])}" for each in tenants
    )
    emit({"tenants": tenants}, as_json=as_json, human=human or "no tenants")
