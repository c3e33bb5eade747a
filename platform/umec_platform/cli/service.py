"""`umec service`: the MEC services that applications registered."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from umec_platform.cli.output import emit, refusals

__all__ = ["app"]

app = typer.Typer()

CredentialFile = Annotated[
    Path, typer.Option("--credential", envvar="UMEC_CREDENTIAL", help="The client's credential file.")
]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
@refusals
def list_(credential: CredentialFile, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """List services with their states."""
    from umec_platform.cli.platform_api import listed

    services = asyncio.run(listed(credential, "/platform/v1/services", tenant))
    human = "\n".join(
        f"{each['serInstanceId']}  {each['tenant']}  {each['serName']} {each['version']}  {each['state']}"
        for each in services
    )
    emit({"services": services}, as_json=as_json, human=human or "no services")


@app.command()
@refusals
def rules(credential: CredentialFile, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """List traffic and DNS rules with their states."""
    from umec_platform.cli.platform_api import listed

    found = asyncio.run(listed(credential, "/platform/v1/rules", tenant))
    human = "\n".join(
        f"{each['tenant']}  {each['instance']}  {each['kind']}  {each['rule']['state']}  {each['refusal'] or ''}"
        for each in found
    )
    emit({"rules": found}, as_json=as_json, human=human or "no rules")
