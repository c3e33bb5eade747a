"""Token texts: access tokens (RFC 9068) and signing identity tokens, from a grant and the key that signs now. Pure."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from umec_core.jose import sign_jwt
from umec_core.tokens import ACCESS_TOKEN_TYPE
from umec_identity.grants.client_credentials import Grant
from umec_identity.keys.ring import RingKey
from umec_identity.revocation.service import microseconds
from umec_identity.settings import SIGSTORE

__all__ = ["IssuedToken", "client_uri", "issue"]


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A signed token, and the answer that carries it (RFC 6749, 5.1)."""

    text: str
    jti: str
    expires: datetime
    answer: Mapping[str, Any]


def client_uri(issuer: str, client_id: str) -> str:
    """Return the URI by which a builder is named in certificates and policies."""
    return f"{issuer}/identity/v1/clients/{client_id}"


def issue(
    grant: Grant, key: RingKey, *, issuer: str, confirmation: Mapping[str, str] | None, life: timedelta, now: datetime
) -> IssuedToken:
    """Return a token for a grant; `confirmation` is its `cnf`, None only for a client registered for bearer tokens."""
    identity = grant.api == SIGSTORE
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": client_uri(issuer, grant.client_id) if identity else grant.client_id,
        "client_id": grant.client_id,
        "aud": grant.audience,
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(life.total_seconds()),
        "jti": secrets.token_urlsafe(18),
    }
    optional: dict[str, Any] = {
        "scope": " ".join(sorted(grant.scopes)) or None,
        "cnf": confirmation,
        "tenant": grant.tenant,
        "node": grant.node,
        "instance": grant.instance,
        "generation": grant.generation,
        "registration": None if grant.registered is None else microseconds(grant.registered),
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    text = sign_jwt(claims, key.key, typ="JWT" if identity else ACCESS_TOKEN_TYPE, kid=key.kid)
    answer: dict[str, Any] = {
        "access_token": text,
        "token_type": "DPoP" if grant.binding == "dpop" else "Bearer",
        "expires_in": int(life.total_seconds()),
    }
    if grant.scopes:
        answer["scope"] = claims["scope"]
    return IssuedToken(text=text, jti=claims["jti"], expires=now + life, answer=answer)
