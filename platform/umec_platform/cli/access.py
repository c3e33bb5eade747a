"""`umec token`: an access token for a client whose credential is in a file."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from umec_platform.cli.output import emit, refusals

__all__ = ["token"]


@refusals
def token(
    resource: Annotated[str, typer.Option(help="What it is for: a resource indicator (RFC 8707), e.g. an API's URL.")],
    credential: Annotated[Path, typer.Option(envvar="UMEC_CREDENTIAL", help="The client's credential file.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="A scope; repeat it for more. Without: all it may have.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print an access token, bound to the key in the credential file (DPoP) where the client is registered so."""
    from umec_platform.cli.remote import connected

    async def fetch() -> str:
        async with connected(credential) as client:
            return (await client.token(resource, tuple(scope or ()))).text

    granted = asyncio.run(fetch())
    emit({"access_token": granted, "token_type": "DPoP"}, as_json=as_json, human=granted)
