"""What arrives at an /oauth2 endpoint: a bounded form whose parameters are given once, and the headers that count."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from umec_core.http import BodyTooLarge
from umec_identity.errors import ParameterRepeated, RequestInvalid, TargetInvalid

__all__ = ["MAX_BODY", "OAuthRequest", "parse_form", "read_body"]

MAX_BODY: Final = 16 * 1024
"""Bytes of a form: an assertion has about 700, a token about 900."""

MAX_PARAMETERS: Final = 32

MAX_HEADER: Final = 8192
"""Characters of a header that carries a JWT."""

HEADERS: Final = ("authorization", "dpop", "oauth-client-attestation", "oauth-client-attestation-pop")

FORM_TYPE: Final = re.compile(r"application/x-www-form-urlencoded\s*(;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OAuthRequest:
    """A request whose shape is good; nothing in it is verified.

    `form` holds the parameters that have a value (RFC 6749, 3.1: one without is as if it were absent). `certificate` is
    what the TLS peer proved (DER), `address` where the request came from.
    """

    form: Mapping[str, str]
    authorization: str | None
    proof: str | None
    attestation: str | None
    possession: str | None
    certificate: bytes | None
    address: str

    @classmethod
    def build(
        cls,
        body: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        certificate: bytes | None,
        address: str,
        form: bool = True,
    ) -> "OAuthRequest":
        """Return a request from its parts; raises `RequestInvalid` or one of its kinds."""
        values = _headers(headers)
        if form and FORM_TYPE.fullmatch(values.get("content-type", "")) is None:
            raise RequestInvalid("the content type is not application/x-www-form-urlencoded in UTF-8")
        return cls(
            form=parse_form(body) if form else {},
            authorization=values.get("authorization"),
            proof=values.get("dpop"),
            attestation=values.get("oauth-client-attestation"),
            possession=values.get("oauth-client-attestation-pop"),
            certificate=certificate,
            address=address,
        )


def _headers(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name not in HEADERS and name != "content-type":
            continue
        if name in found:
            raise ParameterRepeated(f"the header {name} is given twice")
        if len(value) > MAX_HEADER:
            raise RequestInvalid(f"the header {name} is longer than {MAX_HEADER} characters")
        found[name] = value
    return found


def parse_form(body: bytes) -> dict[str, str]:
    """Return the parameters of a form; raises `RequestInvalid`, `ParameterRepeated`, or `TargetInvalid` for `resource`.

    RFC 8707 lets a client name several resources; a token of ours has one audience.
    """
    if not body:
        return {}
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:
        raise RequestInvalid("the body is not a form") from error
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in form:
            if name == "resource":
                raise TargetInvalid("a token is for one resource", advice="ask for one token for each resource")
            raise ParameterRepeated(f"the parameter {name[:64]!r} is given twice")
        form[name] = value
    return {name: value for name, value in form.items() if value}


async def read_body(chunks: AsyncIterator[bytes]) -> bytes:
    """Return a body of at most `MAX_BODY` bytes; raises `BodyTooLarge` as soon as it is longer."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            raise BodyTooLarge(f"the body has more than {MAX_BODY} bytes")
    return bytes(body)
