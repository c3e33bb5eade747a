"""A small authorization server's half of the work: keys, tokens and requests that are good until a test spoils one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from umec_core.dpop import make_proof
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.standing import Standing, StandingEntry, StandingStatement, StandingView
from umec_core.tokens import Presented, StaticKeys, TokenVerifier

ISSUER = "https://authority.test:8443"
AUDIENCE = f"{ISSUER}/platform/v1"
URL = f"{AUDIENCE}/tenants"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def p256() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def statement(
    *entries: tuple[int, str, Standing, int], after: int = 0, last: int | None = None, at: datetime = NOW
) -> StandingStatement:
    rows = tuple(
        StandingEntry(seq=seq, node=node, tenant="transit", standing=standing, generation=generation, changed_at=at)
        for seq, node, standing, generation in entries
    )
    end = last if last is not None else max((row.seq for row in rows), default=after)
    return StandingStatement(issued_at=at, after=after, last=end, node=None, entries=rows)


@dataclass
class World:
    """Everything that a call needs, all of it good; `now` is what the verifier's clock says."""

    now: datetime = NOW
    token_key: EllipticCurvePrivateKey = field(default_factory=p256)
    client_key: EllipticCurvePrivateKey = field(default_factory=p256)
    view: StandingView = field(default_factory=StandingView)
    allow_bearer: bool = False
    url: str = URL

    def __post_init__(self) -> None:
        self.verifier = TokenVerifier(
            issuer=ISSUER,
            audience=AUDIENCE,
            keys=StaticKeys(KeySet([self.token_key.public_key()])),
            standings=self.view,
            clock=lambda: self.now,
            allow_bearer=lambda principal, presented: self.allow_bearer,  # noqa: ARG005
        )

    def claims(self, **changes: Any) -> dict[str, Any]:
        seconds = int(self.now.timestamp())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": "app-1",
            "client_id": "app-1",
            "aud": AUDIENCE,
            "iat": seconds,
            "exp": seconds + 300,
            "jti": "j-1",
            "scope": "mec:app mec:dns",
            "tenant": "transit",
            "instance": "app-1",
            "cnf": {"jkt": thumbprint(self.client_key)},
        }
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not ...}

    def token(self, *, typ: str = "at+jwt", key: EllipticCurvePrivateKey | None = None, **changes: Any) -> str:
        return sign_jwt(self.claims(**changes), key or self.token_key, typ=typ)

    def presented(self, token: str, *, key: EllipticCurvePrivateKey | None = None, **changes: Any) -> Presented:
        proof = make_proof(key or self.client_key, "GET", URL, now=self.now, access_token=token)
        good = Presented(scheme="DPoP", token=token, proof=proof, method="GET", url=URL)
        return replace(good, **changes)

    def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def steady() -> World:
    """One world for all examples of a property."""
    return World()


@pytest.fixture(name="statement", scope="session")
def _statement() -> Callable[..., StandingStatement]:
    return statement
