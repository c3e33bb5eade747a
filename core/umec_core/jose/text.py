"""base64url and JSON as RFC 7515 wants them, each in its one spelling."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from umec_core.jose.errors import JwtMalformed

__all__ = ["base64url_decode", "base64url_encode", "strict_json"]


def base64url_encode(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_decode(text: str) -> bytes:
    """Return the bytes of base64url without padding, in its one canonical spelling; raises `JwtMalformed` otherwise."""
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise JwtMalformed("not base64url without padding") from error
    if base64url_encode(data) != text:
        raise JwtMalformed("not base64url without padding, or its last character has unused bits set")
    return data


def strict_json(data: bytes) -> Mapping[str, Any]:
    """Return a JSON object whose members are named once and whose numbers are numbers; raises `JwtMalformed`."""
    try:
        value = _strict.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise JwtMalformed("not a JSON object with each member once") from error
    if not isinstance(value, dict):
        raise JwtMalformed("not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_strict: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
