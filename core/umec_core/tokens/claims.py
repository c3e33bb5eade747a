"""What a verified access token says: who its holder is, and to what it is bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from umec_core.jose import JwtMalformed, claim_text
from umec_core.principal import Binding, Principal

__all__ = ["Verified", "read_claims"]


@dataclass(frozen=True, slots=True)
class Verified:
    """Claims whose signature and shape were checked, as the cache keeps them."""

    claims: Mapping[str, Any]
    principal: Principal
    confirmation: str | None


def read_claims(claims: Mapping[str, Any]) -> Verified:
    """Return the principal of verified claims; raises `JwtInvalid` where one has another shape."""
    node, generation = _optional(claims, "node"), claims.get("generation")
    if (node is None) != (generation is None) or isinstance(generation, bool) or not isinstance(generation, int | None):
        raise JwtMalformed("node and generation come together, and the generation is a whole number")
    binding, confirmation = _binding(claims.get("cnf"))
    scope = _optional(claims, "scope")
    principal = Principal(
        subject=claim_text(claims, "sub"),
        client_id=claim_text(claims, "client_id"),
        scopes=frozenset() if scope is None else frozenset(scope.split()),
        audience=claim_text(claims, "aud"),
        tenant=_optional(claims, "tenant"),
        node=node,
        generation=generation,
        instance=_optional(claims, "instance"),
        expires=datetime.fromtimestamp(claims["exp"], UTC),
        jti=claim_text(claims, "jti"),
        binding=binding,
    )
    return Verified(claims=claims, principal=principal, confirmation=confirmation)


def _optional(claims: Mapping[str, Any], name: str) -> str | None:
    """Return a claim that may be absent; an empty one is neither there nor absent, and refused."""
    return None if claims.get(name) is None else claim_text(claims, name, longest=2048)


def _binding(confirmation: object) -> tuple[Binding, str | None]:
    """Return how a token is bound, by its `cnf`; an unknown or a double binding is an error, never "unbound"."""
    if confirmation is None:
        return "bearer", None
    if isinstance(confirmation, Mapping) and len(confirmation) == 1:
        if "jkt" in confirmation:
            return "dpop", claim_text(confirmation, "jkt")
        if "x5t#S256" in confirmation:
            return "mtls", claim_text(confirmation, "x5t#S256")
    raise JwtMalformed("cnf is neither one jkt nor one x5t#S256")
