"""What an operator may set about the authorization server, and the resources that it issues tokens for."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["SCOPES", "SIGSTORE", "IdentitySettings", "Resources"]

SIGSTORE: Final = "sigstore"
"""The audience of signing identity tokens: what every Sigstore client expects, hence no URL."""

SCOPES: Final[dict[str, frozenset[str]]] = {
    "attest": frozenset({"attest:admin", "attest:read", "standings:read"}),
    "identity": frozenset({"identity:clients", "identity:instances"}),
    "platform": frozenset({"platform:admin", "platform:tenant"}),
    "mp1": frozenset({"mec:services.read", "mec:services.write", "mec:app", "mec:traffic", "mec:dns"}),
    "registry": frozenset({"images:push", "images:pull", "images:promote", "images:admin"}),
    SIGSTORE: frozenset(),
}
"""The scopes of each API. `node:host` says that the caller is a node, and is known at every one."""


class IdentitySettings(BaseModel):
    """Settings of the authorization server; URLs without a trailing slash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str
    """Issuer identifier (RFC 8414) and base URL of the management listener, `https://HOST:8443`."""
    mp1: str
    """Base URL of the Mp1 listener."""
    registry: str
    """Base URL of the registry listener."""
    state: Path
    """Folder (0700) of the token keys, the platform CA and, by default, the database."""
    database: str | None = None
    """URL of the database; None for SQLite in the state folder."""
    verifier: str | None = None
    """Issuer of attestation results; None for `{issuer}/attest/v1`."""
    token_seconds: int = Field(default=300, ge=10, le=300)
    token_key_days: int = Field(default=30, ge=1, le=365)
    requests_per_second_address: float = Field(default=500.0, gt=0)
    requests_per_second_client: float = Field(default=100.0, gt=0)

    @field_validator("issuer", "mp1", "registry")
    @classmethod
    def _base_url(cls, value: str) -> str:
        if not value.startswith("https://") or value.endswith("/") or any(mark in value for mark in "?# "):
            raise ValueError("expected https://HOST[:PORT] without a trailing slash")
        return value

    @property
    def database_url(self) -> str:
        """The URL of the database."""
        return self.database or f"sqlite+aiosqlite:///{self.state / 'identity.db'}"

    @property
    def verifier_issuer(self) -> str:
        """The issuer of attestation results and standing statements."""
        return self.verifier or f"{self.issuer}/attest/v1"


class Resources:
    """The resource indicators (RFC 8707) of all APIs: each is the one audience of its tokens."""

    def __init__(self, settings: IdentitySettings) -> None:
        self.by_api: Final[dict[str, str]] = {
            "attest": f"{settings.issuer}/attest/v1",
            "identity": f"{settings.issuer}/identity/v1",
            "platform": f"{settings.issuer}/platform/v1",
            "mp1": f"{settings.mp1}/",
            "registry": f"{settings.registry}/",
            SIGSTORE: SIGSTORE,
        }
        self._by_uri = {uri: api for api, uri in self.by_api.items()}

    def api(self, uri: str) -> str | None:
        """Return the short name of the API with that resource indicator, or None."""
        return self._by_uri.get(uri)
