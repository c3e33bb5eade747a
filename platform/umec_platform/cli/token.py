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
    scope: Annotated[list[str] | None, typer.Option(help="A scope; repeat it for more. Without: all it may have.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print an access token, bound to the key in the credential file (DPoP) where the client is registered so."""
    from umec_core.client import open_client  # noqa: PLC0415 - nothing heavy before it is needed

    async def fetch() -> dict[str, str | int]:
        async with open_client(credential) as client:
            granted = await client.token(resource, tuple(scope or ()))
        return {"access_token": granted.value, "token_type": granted.token_type, "expires_in": granted.expires_in}

    granted = asyncio.run(fetch())
    emit(granted, as_json=as_json, human=str(granted["access_token"]))
