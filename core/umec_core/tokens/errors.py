"""Why an API refuses what a request presents."""

from umec_core.errors import Unauthenticated, Unavailable

__all__ = [
    "KeysUnavailable",
    "TokenAudience",
    "TokenBinding",
    "TokenExpired",
    "TokenInvalid",
    "TokenMissing",
    "TokenRevoked",
]


class TokenMissing(Unauthenticated):
    """The request presents no access token."""

    code = "token-missing"


class TokenInvalid(Unauthenticated):
    """The token is not one of our authorization server."""

    code = "token-invalid"


class TokenExpired(Unauthenticated):
    """The time of the token is over, or has not come."""

    code = "token-expired"


class TokenAudience(Unauthenticated):
    """The token was made for another API."""

    code = "token-audience"


class TokenBinding(Unauthenticated):
    """The token is not presented by its holder, or not in the way that it is bound."""

    code = "token-binding"


class TokenRevoked(Unauthenticated):
    """The token, or its client, was revoked."""

    code = "token-revoked"


class KeysUnavailable(Unavailable):
    """The keys of a peer cannot be read right now."""

    code = "keys-unavailable"
