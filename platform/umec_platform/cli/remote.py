"""A command's connection to a site: the client of a credential file."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from umec_core.client import OAuthClient, http_client, load_credential

__all__ = ["connected"]


@contextlib.asynccontextmanager
async def connected(credential: Path) -> AsyncIterator[OAuthClient]:
    """Give an OAuth client for a credential file; raises `CredentialInvalid`, `RemoteRefused`, `RemoteUnavailable`."""
    document = load_credential(credential)
    async with http_client(document.ca) as http:
        yield OAuthClient(document, http)
