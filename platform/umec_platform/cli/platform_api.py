"""A command's way to the management interface of the MEC host."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from umec_core.client import OAuthClient, RemoteUnavailable
from umec_core.principal import TokenScope
from umec_platform.cli.remote import connected

__all__ = ["PlatformApi", "listed", "platform_api"]

ADMIN: Final = "platform:admin"
TENANT: Final = "platform:tenant"


class PlatformApi:
    """Calls under the management URL with a token for the platform: as the operator, else as a tenant."""

    def __init__(self, client: OAuthClient) -> None:
        self._client = client
        self.base: Final = client.credential.issuer
        self._resource = f"{self.base}/platform/v1"
        self._scopes = [ADMIN]

    async def get(self, path: str, tenant: str | None = None) -> Any:  # noqa: ANN401 - any JSON
        """Return what is there."""
        return (await self.send("GET", path, tenant=tenant)).json()

    async def post(self, path: str, wish: Mapping[str, Any], tenant: str | None = None) -> dict[str, Any]:
        """Make something and return it."""
        made: dict[str, Any] = (await self.send("POST", path, json=wish, tenant=tenant)).json()
        return made

    async def send(self, method: str, path: str, *, tenant: str | None = None, **arguments: Any) -> Any:  # noqa: ANN401
        """Send a request; `path` may be an absolute URL of this site."""
        url = path if path.startswith(f"{self.base}/") else f"{self.base}{path}"
        params = None if tenant is None else {"tenant": tenant}
        return await self._client.request(
            method, url, resource=self._resource, scopes=self._scopes, params=params, **arguments
        )

    async def settle_scope(self) -> None:
        """Find out whether the credential is the operator's or a tenant's."""
        from umec_core.client import RemoteRefused

        try:
            await self._client.token(self._resource, self._scopes)
        except RemoteRefused as error:
            if error.code not in {"invalid_scope", "scope-denied", TokenScope.code} and error.status not in {400, 403}:
                raise
            self._scopes = [TENANT]


@contextlib.asynccontextmanager
async def platform_api(credential: Path) -> AsyncIterator[PlatformApi]:
    """Give the interface for a credential file; raises `CredentialInvalid`, `RemoteRefused`, `RemoteUnavailable`."""
    async with connected(credential) as client:
        api = PlatformApi(client)
        await api.settle_scope()
        yield api


async def listed(credential: Path, path: str, tenant: str | None = None) -> list[dict[str, Any]]:
    """Return a list of the interface."""
    async with platform_api(credential) as api:
        found = await api.get(path, tenant)
    if not isinstance(found, list):
        raise RemoteUnavailable(f"{path} did not answer with a list")
    return found
