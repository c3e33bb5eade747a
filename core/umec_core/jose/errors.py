"""Why a token or a key is refused."""

from umec_core.errors import Invalid

__all__ = [
    "JwkInvalid",
    "JwtAlgorithm",
    "JwtClaim",
    "JwtExpired",
    "JwtHeader",
    "JwtInvalid",
    "JwtKeyUnknown",
    "JwtMalformed",
    "JwtSignature",
    "JwtType",
]


class JwtInvalid(Invalid):
    """A token is not what it says, or not what was asked for."""

    code = "jwt-invalid"


class JwtMalformed(JwtInvalid):
    """The text is not a compact JWS of a JSON object, or it is too long."""

    code = "jwt-malformed"


class JwtHeader(JwtInvalid):
    """The header has a member that we do not accept, or one of the wrong shape."""

    code = "jwt-header"


class JwtAlgorithm(JwtInvalid):
    """The token is signed with another algorithm than ES256."""

    code = "jwt-algorithm"


class JwtType(JwtInvalid):
    """The token is of another kind than the caller asked for."""

    code = "jwt-type"


class JwtKeyUnknown(JwtInvalid):
    """No key of the set has the identifier that the token names."""

    code = "jwt-key-unknown"


class JwtSignature(JwtInvalid):
    """The signature does not match."""

    code = "jwt-signature"


class JwtClaim(JwtInvalid):
    """A claim is missing or of another shape."""

    code = "jwt-claim"


class JwtExpired(JwtInvalid):
    """The time of the token is over, has not come, or is longer than allowed."""

    code = "jwt-expired"


class JwkInvalid(Invalid):
    """A JWK is not a public P-256 key, or it holds its private part."""

    code = "jwk-invalid"
