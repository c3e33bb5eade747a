"""What others on the node may ask the running agent for: one JSON object, with `op` and what belongs to it."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from umec_attest.agent.fields import FieldInvalid, Fields, read_object
from umec_core.errors import Invalid

__all__ = [
    "MAX_CONTENT",
    "Call",
    "OpenDoor",
    "Request",
    "Rotate",
    "Start",
    "Status",
    "Token",
    "checked",
    "read_request",
]

MAX_CONTENT: Final = 1024 * 1024
"""Bytes of a body that is sent; what comes back is bounded where it is read (`transport`)."""
MAX_DECISION: Final = 65536
MAX_NAME: Final = 512
MAX_URL: Final = 4096
MAX_HEADERS: Final = 8192

_METHOD: Final = re.compile(r"[A-Z]{3,16}")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_URL: Final = re.compile(r"https://[^\s]+")
_HOST: Final = re.compile(r"[A-Za-z0-9.:-]+")


@dataclass(frozen=True, slots=True)
class Status:
    """Ask for the last status line."""

    def to_json(self) -> dict[str, Any]:
        """Return the members of the request."""
        return {"op": "status"}


@dataclass(frozen=True, slots=True)
class Token:
    """Ask for a token that is bound to the node's certificate."""

    resource: str
    scope: str

    def to_json(self) -> dict[str, Any]:
        """Return the members of the request."""
        return {"op": "token", "resource": self.resource, "scope": self.scope}


@dataclass(frozen=True, slots=True)
class Call:
    """Ask for one request in the node's name."""

    method: str
    url: str
    resource: str
    scope: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the members of the request; content in base64."""
        members: dict[str, Any] = {
            "op": "call",
            "method": self.method,
            "url": self.url,
            "resource": self.resource,
            "scope": self.scope,
            "headers": dict(self.headers),
        }
        return members if self.content is None else {**members, "content": base64.b64encode(self.content).decode()}


@dataclass(frozen=True, slots=True)
class OpenDoor:
    """Ask for a connection to a server of the site that shows the node's certificate (`doors`)."""

    host: str
    port: int

    def to_json(self) -> dict[str, Any]:
        """Return the members of the request."""
        return {"op": "door", "host": self.host, "port": self.port}


@dataclass(frozen=True, slots=True)
class Start:
    """Ask to measure that an application is started: `image` is the digest of its manifest, `decision` a JWT."""

    tenant: str
    instance: str
    image: str
    decision: str

    def to_json(self) -> dict[str, Any]:
        """Return the members of the request."""
        return {
            "op": "start",
            "tenant": self.tenant,
            "instance": self.instance,
            "image": self.image,
            "decision": self.decision,
        }


@dataclass(frozen=True, slots=True)
class Rotate:
    """Ask for new keys of the node, and a round with them."""

    def to_json(self) -> dict[str, Any]:
        """Return the members of the request."""
        return {"op": "rotate"}


Request = Status | Token | Call | OpenDoor | Rotate | Start


def read_request(line: bytes) -> Request:
    """Return the request of a line; raises Invalid, which names the member that is not as it should be."""
    try:
        fields = read_object(line)
        request = fields.one_of("op", _READERS)(fields)
        fields.end()
    except FieldInvalid as error:
        raise Invalid(f"not a request to the agent, see: {error.place}") from error
    return request


def checked(request: Request) -> Request:
    """Return a request as it arrives at the agent; raises Invalid."""
    return read_request(json.dumps(request.to_json()).encode())


def _status(_fields: Fields) -> Request:
    return Status()


def _rotate(_fields: Fields) -> Request:
    return Rotate()


def _token(fields: Fields) -> Request:
    return Token(fields.text("resource", shortest=1, longest=MAX_NAME), fields.text("scope", longest=MAX_NAME))


def _door(fields: Fields) -> Request:
    return OpenDoor(fields.text("host", longest=255, pattern=_HOST), fields.integer("port", least=1, most=65535))


def _start(fields: Fields) -> Request:
    """What these texts have to be like, `umec_attest.starts` says: nothing else is measured."""
    return Start(
        tenant=fields.text("tenant", longest=MAX_NAME),
        instance=fields.text("instance", longest=MAX_NAME),
        image=fields.text("image", longest=MAX_NAME),
        decision=fields.text("decision", longest=MAX_DECISION),
    )


def _call(fields: Fields) -> Request:
    headers = fields.optional("headers", lambda name: fields.texts(name, longest=MAX_HEADERS)) or {}
    if not all(_HEADER.fullmatch(name) and _VALUE.fullmatch(value) for name, value in headers.items()):
        raise FieldInvalid("headers")
    return Call(
        method=fields.text("method", longest=16, pattern=_METHOD),
        url=fields.text("url", longest=MAX_URL, pattern=_URL),
        resource=fields.text("resource", shortest=1, longest=MAX_NAME),
        scope=fields.text("scope", longest=MAX_NAME),
        content=fields.optional("content", lambda name: fields.octets(name, most=MAX_CONTENT)),
        headers=headers,
    )


_READERS: Final = {"status": _status, "token": _token, "call": _call, "door": _door, "rotate": _rotate, "start": _start}
