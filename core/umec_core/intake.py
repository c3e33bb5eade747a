"""What no API of ours takes, refused before anything looks at it: JSON with two readings, and NUL in addresses.

    JsonMalformed     json-malformed       not I-JSON (RFC 7493): UTF-8 without a mark in front, one value, each member
                                           once, finite numbers, no lone surrogates, no NUL, bounded depth and integers
    RequestMalformed  request-malformed    NUL in path or query, or more than one content type

A member that is given twice is the last one to one parser and the first one to another; what `json` takes beyond JSON
(NaN, UTF-16, lone surrogates) and what no database keeps (NUL) would fail somewhere inside.
"""

import json
import math
from typing import Any, Final, NoReturn

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from umec_core.errors import Invalid, UmecError
from umec_core.problems import MEDIA_TYPE, problem_details

__all__ = ["Intake", "JsonMalformed", "RequestMalformed", "check_json"]

FORMS: Final = "/oauth2/"
"""Endpoints that read forms and have refusals of their own (RFC 6749); they hold nothing that is not theirs."""

MAX_DEPTH: Final = 32
"""Levels of arrays and objects; the deepest of ours, an AppD, has about eight."""

MAX_DIGITS: Final = 20
"""Digits of a whole number: 64 bits and a sign."""


class JsonMalformed(Invalid):
    """The body is no JSON, or JSON that two parsers can read differently."""

    code = "json-malformed"


class RequestMalformed(Invalid):
    """The request line or the headers hold what no API of ours takes."""

    code = "request-malformed"


def check_json(body: bytes) -> None:
    """Raise `JsonMalformed` unless a body is I-JSON within the limits."""
    try:
        value = _JSON.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise JsonMalformed("the body is not JSON (RFC 7493): UTF-8, each member once, finite numbers") from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH or b"\\u" in body:  # else there is nothing to be found
        _look_into(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members


def _no(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number is too long")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


_JSON: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no, parse_int=_whole, parse_float=_finite)
"""Made once: that takes as long as reading a small body."""


def _look_into(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str) and ("\0" in one or not _is_text(one)):
                raise JsonMalformed("a text in the body holds NUL or half of a character")
        if not below:
            return
        level = below
    raise JsonMalformed(f"the body has more than {MAX_DEPTH} levels")


def _is_text(text: str) -> bool:
    return not any("\ud800" <= mark <= "\udfff" for mark in text)


class Intake:
    """ASGI middleware in front of an API; what it refuses is a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as it came, or answer it."""
        if scope["type"] != "http" or scope["path"].startswith(FORMS):
            await self._app(scope, receive, send)
            return
        try:
            replayed = await _checked(scope, receive)
        except UmecError as error:
            body = problem_details(error)
            await JSONResponse(body, status_code=body["status"], media_type=MEDIA_TYPE)(scope, receive, send)
            return
        await self._app(scope, replayed, send)


async def _checked(scope: Scope, receive: Receive) -> Receive:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise RequestMalformed("path and query hold no NUL")
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(types) > 1:
        raise RequestMalformed("a request has one content type")
    if not types or not _is_json(types[0]):
        return receive
    body = await _whole_body(receive)
    if body is None:
        return receive
    if body:
        check_json(body)
    return _Replayed(body, receive)


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json" or (media_type[:12] == b"application/" and media_type[-5:] == b"+json")


async def _whole_body(receive: Receive) -> bytes | None:
    """Return the body, which the layer around this one bounds; None if its client has left."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


class _Replayed:
    """The body at once, and then whatever comes."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
