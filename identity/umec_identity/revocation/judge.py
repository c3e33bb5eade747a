"""What a token is worth now, for those who may ask (introspection), and its end before its time (revocation)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.jose import JwtInvalid, check_times, claim_text, verify_jwt
from umec_core.standing import StandingView
from umec_core.store import Store
from umec_core.tokens import ACCESS_TOKEN_TYPE, MAX_LIFE
from umec_identity.authentication.service import Authenticated, Authentication
from umec_identity.errors import CallerDenied, RequestInvalid
from umec_identity.forms import OAuthRequest
from umec_identity.keys.ring import KeyRing
from umec_identity.refusals import Refusals
from umec_identity.revocation.service import Revocation
from umec_identity.rows import use_up

__all__ = ["TokenJudge"]

INTROSPECTING: Final = frozenset({"service", "operator"})
"""The kinds of clients that may ask about anybody's token."""

SHOWN: Final = (
    "iss",
    "sub",
    "client_id",
    "aud",
    "iat",
    "nbf",
    "exp",
    "jti",
    "scope",
    "cnf",
    "tenant",
    "node",
    "instance",
    "generation",
)
"""The claims that an introspection answer repeats."""


class TokenJudge:
    """Introspection and revocation."""

    def __init__(
        self,
        *,
        issuer: str,
        store: Store,
        audit: AuditLog,
        authentication: Authentication,
        refusals: Refusals,
        revocation: Revocation,
        ring: KeyRing,
        standings: StandingView,
        clock: Clock,
    ) -> None:
        self._issuer = issuer
        self._store = store
        self._audit = audit
        self._authentication = authentication
        self._refusals = refusals
        self._revocation = revocation
        self._ring = ring
        self._standings = standings
        self._clock = clock

    async def introspect(self, request: OAuthRequest) -> Mapping[str, Any]:
        """Return what RFC 7662 says of a token; raises if the caller may not ask. A doubtful token is inactive."""
        who = await self._caller(request, "token.introspect")
        if who.client is None or who.client.kind not in INTROSPECTING:
            await self._deny(who, "token.introspect", "this client may not introspect tokens")
        await self._store.write(lambda session: use_up(session, who.used))
        claims = self._live(request.form["token"])
        if claims is None:
            return {"active": False}
        kind = "DPoP" if "jkt" in claims.get("cnf", {}) else "Bearer"
        return {"active": True, "token_type": kind} | {name: claims[name] for name in SHOWN if name in claims}

    async def revoke(self, request: OAuthRequest) -> None:
        """Deny a token from now on; a text that is no live token of ours is revoked already (RFC 7009, 2.2).

        A client revokes its own tokens, an operator anybody's.
        """
        who = await self._caller(request, "token.revoke")
        claims = self._live(request.form["token"])
        operator = who.client is not None and who.client.kind == "operator"
        if claims is not None and claims["client_id"] != who.client_id and not operator:
            await self._deny(who, "token.revoke", "the token is another client's")

        async def work(session: AsyncSession) -> None:
            await use_up(session, who.used)
            if claims is not None:
                await self._record(session, who, claims)

        await self._store.write(work)
        await self._revocation.refresh()

    async def _record(self, session: AsyncSession, who: Authenticated, claims: Mapping[str, Any]) -> None:
        now, until = self._clock(), datetime.fromtimestamp(claims["exp"], UTC)
        await self._revocation.deny_token(session, claims["jti"], until=until, now=now)
        await self._audit.append(
            session,
            actor=who.client_id,
            action="token.revoke",
            subject=claims["client_id"],
            outcome="done",
            facts={"jti": claims["jti"]},
            now=now,
        )

    async def _caller(self, request: OAuthRequest, action: str) -> Authenticated:
        try:
            if "token" not in request.form:
                raise RequestInvalid("there is no token")
            return await self._authentication.authenticate(request)
        except UmecError as error:
            await self._refusals.unauthenticated(action, request.address, error)
            raise

    async def _deny(self, who: Authenticated, action: str, reason: str) -> None:
        error = CallerDenied(reason)
        await self._refusals.authenticated(action, who, who.client_id, error)
        raise error

    def _live(self, text: str) -> Mapping[str, Any] | None:
        """Return the claims of a token that every API would honour now, if its holder presented it; else None."""
        now = self._clock()
        try:
            claims = verify_jwt(text, self._ring.published(), typ=ACCESS_TOKEN_TYPE)
            check_times(claims, now, longest=MAX_LIFE)
            if claim_text(claims, "iss") != self._issuer or self._revocation.denied(claims):
                return None
            if "node" in claims:
                self._standings.check(claims["node"], claims["generation"], now)
        except (JwtInvalid, UmecError):
            return None
        return claims
