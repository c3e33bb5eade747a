"""Whose signature it will be: the identity token of our own authorization server, checked claim by claim.

iss  must be the pinned issuer             aud  must be exactly `sigstore`
sub  becomes the certificate's URI         exp, nbf, iat  bound the moment
typ  JWT; signature by a key of the issuer's JWKS (ES256)

Every other claim is unused.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from umec_core.clock import Clock
from umec_core.errors import Kind, UmecError
from umec_core.jose import peek_header, verify_jwt
from umec_core.tokens import KeySource
from umec_images.authority.certificate import SigningIdentity
from umec_images.authority.errors import (
    IdentityTokenExpired,
    IdentityTokenInvalid,
    IdentityTokenMissing,
    IdentityTokenSubject,
)

__all__ = ["AUDIENCE", "IdentityVerifier"]

AUDIENCE: Final = "sigstore"
LEEWAY: Final = 5
"""Seconds by which two clocks of one site may differ."""
_URI: Final = re.compile(r"(?:https?|urn|spiffe):[!#-;=?-Z_a-z~]{1,500}\Z", re.ASCII)


class IdentityVerifier:
    """Turns an Authorization header into the identity that a certificate will name."""

    def __init__(self, *, issuer: str, keys: KeySource, clock: Clock) -> None:
        if not issuer:
            raise IdentityTokenInvalid("an authority that believes no issuer certifies nobody")
        self._issuer = issuer
        self._keys = keys
        self._clock = clock

    async def verify(self, authorization: str | None) -> SigningIdentity:
        """Return the proven identity, or raise an error with a code `identity-token-…`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise IdentityTokenMissing("the request carries no bearer identity token")
        claims = await self._signed_claims(token)
        self._check_origin(claims)
        _check_time(claims, self._clock())
        return SigningIdentity(_subject(claims), self._issuer)

    async def _signed_claims(self, token: str) -> Mapping[str, Any]:
        try:
            kid = peek_header(token).get("kid")
            keys = await self._keys.keys(kid if isinstance(kid, str) else None)
            return verify_jwt(token, keys, typ="JWT")
        except UmecError as error:
            if error.kind is Kind.UNAVAILABLE:
                raise
            raise IdentityTokenInvalid(error.detail) from error

    def _check_origin(self, claims: Mapping[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise IdentityTokenInvalid("the token comes from another issuer")
        if claims.get("aud") != AUDIENCE:
            raise IdentityTokenInvalid(f"the token is not for `{AUDIENCE}`")


def _check_time(claims: Mapping[str, Any], now: datetime) -> None:
    moment = now.timestamp()
    if _number(claims, "exp") <= moment:
        raise IdentityTokenExpired("the identity token has expired")
    if max(_number(claims, "iat"), _number(claims, "nbf") if "nbf" in claims else 0) > moment + LEEWAY:
        raise IdentityTokenExpired("the identity token is not valid yet")


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise IdentityTokenInvalid(f"the claim `{name}` is missing or no number")
    return value


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or _URI.match(subject) is None:
        raise IdentityTokenSubject("the subject is no URI of printable ASCII: only builders' tokens have one")
    return subject
