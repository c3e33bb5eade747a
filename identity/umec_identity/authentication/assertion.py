"""private_key_jwt (RFC 7523 and its revision): a client proves who it is by a short JWT for our issuer alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, generate_private_key

from umec_core.jose import (
    JwtExpired,
    JwtInvalid,
    JwtKeyUnknown,
    JwtSignature,
    KeySet,
    check_times,
    claim_text,
    peek_claims,
    verify_jwt,
)
from umec_identity.clients.service import Client, Clients
from umec_identity.errors import AssertionAudience, AssertionExpired, AssertionInvalid, ClientInvalid
from umec_identity.rows import Used

__all__ = ["ASSERTION_TYPE", "ClientAssertion", "PeekedAssertion", "peek_assertion", "verify_assertion"]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

TYPES: Final = (None, "JWT", "client-authentication+jwt")
"""`typ` of an assertion: RFC 7523 said nothing, its revision names the last one."""

MAX_LIFE: Final = timedelta(minutes=5)
"""FAPI 2.0 allows an assertion no longer a life; its identifier is remembered as long."""

MAX_JTI: Final = 128

MAX_ASSERTION: Final = 4096
"""Characters; an ES256 assertion has about 500."""


class _Nobody(KeySet):
    """A key of nobody, found under any name: with it an unknown client's assertion takes as long to refuse."""

    def find(self, kid: str | None) -> EllipticCurvePublicKey:  # noqa: ARG002
        return super().find(None)


_nobody: Final = _Nobody([generate_private_key(SECP256R1()).public_key()])


@dataclass(frozen=True, slots=True)
class PeekedAssertion:
    """What an assertion says before anybody has checked its signature: good for dropping it cheaply."""

    client_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ClientAssertion:
    """A verified assertion: its client, and its identifier, which is to be used up."""

    client: Client
    used: Used


def peek_assertion(text: str, *, issuer: str, now: datetime) -> PeekedAssertion:
    """Return whose assertion this would be; raises an `AssertionInvalid`. Cheap checks, before any signature.

    1. It has every claim, in shape. 2. Issuer and subject are the same client. 3. Its one audience is our issuer
    identifier. 4. It is valid now, and for five minutes at most.
    """
    try:
        if len(text) > MAX_ASSERTION:
            raise AssertionInvalid(f"the assertion is longer than {MAX_ASSERTION} characters")
        claims = peek_claims(text)
        client_id = claim_text(claims, "sub")  # 1
        claim_text(claims, "jti", longest=MAX_JTI)
        if claim_text(claims, "iss") != client_id:  # 2
            raise AssertionInvalid("issuer and subject of the assertion are not the same client")
        _check_audience(claims, issuer)  # 3
        check_times(claims, now, longest=MAX_LIFE)  # 4
    except JwtExpired as error:
        raise AssertionExpired(f"the assertion is not valid now: {error.detail}") from error
    except JwtInvalid as error:
        raise AssertionInvalid(f"the assertion is not valid: {error.detail}") from error
    return PeekedAssertion(client_id=client_id, text=text)


def _check_audience(claims: Mapping[str, Any], issuer: str) -> None:
    if claims.get("aud") != issuer:
        raise AssertionAudience(f"the audience of the assertion is not {issuer} alone")


async def verify_assertion(peeked: PeekedAssertion, clients: Clients) -> ClientAssertion:
    """Return the client of an assertion; raises `ClientInvalid` or `AssertionInvalid`.

    An unknown client, an unknown key and a bad signature give one answer, after one verification each.
    """
    client = await clients.find(peeked.client_id)
    if client is None:
        _spend(peeked.text)
        raise ClientInvalid
    try:
        claims = verify_jwt(peeked.text, client.keys, typ=TYPES)
    except JwtKeyUnknown:
        _spend(peeked.text)
        raise ClientInvalid from None
    except JwtSignature:
        raise ClientInvalid from None
    except JwtInvalid as error:
        raise AssertionInvalid(f"the assertion is not valid: {error.detail}") from error
    until = datetime.fromtimestamp(claims["exp"], UTC)
    return ClientAssertion(client=client, used=Used("assertion", client.client_id, claims["jti"], until=until))


def _spend(text: str) -> None:
    """Take the time of one verification."""
    try:
        verify_jwt(text, _nobody, typ=TYPES)
    except JwtInvalid:
        return
