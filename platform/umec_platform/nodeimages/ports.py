"""What orders of node images need of others."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

__all__ = ["Admits", "FoundImage", "ImageReader"]


@dataclass(frozen=True, slots=True)
class FoundImage:
    """A node image in the registry: its name and version, and the digests of manifest.json and uki.efi."""

    name: str
    version: int
    manifest: str
    kernel: str


class ImageReader(Protocol):
    """Reads what a node image says of itself."""

    async def read(self, repository: str, digest: str) -> FoundImage:
        """Return it; raises where the digest is none of a node image."""
        ...


class Admits(Protocol):
    """Decides whether an image may run for a tenant; raises the refusal."""

    async def admit(self, *, tenant: str, repository: str, digest: str, now: datetime) -> object:
        """Return if exactly this digest may."""
        ...
