"""What the life cycle of instances needs of others."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

__all__ = ["Admitted", "Admitter", "ClientRegistrar", "NewClient", "Puller"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """An image that may run: what admission decided by which policies."""

    repository: str
    digest: str
    policies: tuple[str, ...]
    policy_sha256: str


class Admitter(Protocol):
    """Decides whether an image may run for a tenant; raises the refusal."""

    async def admit(self, *, tenant: str, repository: str, digest: str, now: datetime) -> Admitted:
        """Return the admission of exactly this digest."""
        ...


class Puller(Protocol):
    """Fetches images."""

    async def pull(self, repository: str, digest: str) -> Path:
        """Return a folder with `sha256/<hex>` of the manifest, its configuration and its layers, digests checked."""
        ...

    async def keep(self, digests: Collection[str]) -> None:
        """Keep these images at hand; others may be forgotten."""
        ...


@dataclass(frozen=True, slots=True)
class NewClient:
    """An application instance as a client of the authorization server."""

    client_id: str
    tenant: str
    node: str
    jwk: Mapping[str, str]
    scopes: Sequence[str]


class ClientRegistrar(Protocol):
    """Makes and removes clients of the authorization server."""

    async def register(self, client: NewClient) -> None:
        """Register a client; one of the same id is replaced."""
        ...

    async def remove(self, client_id: str) -> None:
        """Remove a client; removing what is not there succeeds."""
        ...
