"""Who asks: what a verified access token says about the caller, and what the caller may do."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from umec_core.errors import Forbidden

__all__ = ["Binding", "Principal", "TokenScope"]

Binding = Literal["dpop", "mtls", "bearer"]
"""How a token is tied to its holder: a proof by its key (RFC 9449), its TLS certificate (RFC 8705), or not at all."""


class TokenScope(Forbidden):
    """The token does not hold a scope that the call needs."""

    code = "token-scope"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of an API; only `umec_core.tokens.TokenVerifier` makes one."""

    subject: str
    client_id: str
    scopes: frozenset[str]
    audience: str
    tenant: str | None
    node: str | None
    generation: int | None
    instance: str | None
    expires: datetime
    jti: str
    binding: Binding

    def require(self, *scopes: str) -> None:
        """Return if the caller holds all these scopes; raises `TokenScope` naming those that miss."""
        missing = set(scopes) - self.scopes
        if missing:
            raise TokenScope(f"the token lacks the scope {' '.join(sorted(missing))}")
