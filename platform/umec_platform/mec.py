"""What all MEC interfaces share: the base of their models and the types of MEC 009 and MEC 011 clause 6.

The standard's rule about unknown members holds for standard formats: they are kept for the round trip, never acted on.
A member that we know must be right. Attributes that a reader may leave out have the default of the standard, and the
default is written back, so that what was meant survives a round trip.
"""

from enum import Enum, unique
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

__all__ = [
    "MAX_LIST",
    "Address",
    "CategoryRef",
    "EndPointInfo",
    "GrantType",
    "Identifier",
    "LinkType",
    "MecModel",
    "OAuth2Info",
    "SecurityInfo",
    "SerializerType",
    "Text",
    "TimeStamp",
    "TransportInfo",
    "TransportType",
    "faults",
    "one_or_many",
]

MAX_LIST: Final = 64
"""Members of any list that a tenant sends: far above every use, low enough that no list becomes a burden."""

MAX_FAULTS: Final = 8
"""Faults that a refusal names; a reader mends these first."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""A name or a description: not empty, bounded."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}$")]
"""An identifier that an application provider chose: it appears in a path, so it holds unreserved characters only."""


def one_or_many(value: object) -> object:
    """Take a single value for a list of one: editions of the standard differ in it."""
    return value if value is None or isinstance(value, list) else [value]


def faults(error: ValidationError) -> str:
    """Say what is wrong and where, without repeating what came in (it may hold a secret or an escape sequence)."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    shown = [f"{'.'.join(str(part) for part in fault['loc'])[:128] or 'body'}: {fault['msg']}" for fault in found]
    more = f"; and {len(shown) - MAX_FAULTS} more" if len(shown) > MAX_FAULTS else ""
    return "; ".join(shown[:MAX_FAULTS]) + more


class MecModel(BaseModel):
    """A data type of a MEC standard: camelCase on the wire, unknown members kept, immutable."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow", frozen=True)

    def wire(self) -> dict[str, Any]:
        """Return the JSON object of the standard: wire names, defaults written out, absent members left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class LinkType(MecModel):
    """A link to a resource."""

    href: Text


class TimeStamp(MecModel):
    """A time as seconds and nanoseconds since 1970-01-01 UTC."""

    seconds: int = Field(ge=0, le=2**32 - 1)
    nano_seconds: int = Field(ge=0, lt=10**9)


class CategoryRef(MecModel):
    """The category of a service in a catalogue."""

    href: Text
    id: Text
    name: Text
    version: Text


@unique
class SerializerType(Enum):
    """How the bodies of a service are serialised."""

    JSON = "JSON"
    XML = "XML"
    PROTOBUF3 = "PROTOBUF3"


@unique
class TransportType(Enum):
    """What kind of transport carries a service."""

    REST_HTTP = "REST_HTTP"
    MB_TOPIC_BASED = "MB_TOPIC_BASED"
    MB_ROUTING = "MB_ROUTING"
    MB_PUBSUB = "MB_PUBSUB"
    RPC = "RPC"
    RPC_STREAMING = "RPC_STREAMING"
    WEBSOCKET = "WEBSOCKET"


@unique
class GrantType(Enum):
    """An OAuth 2.0 grant, in the words of MEC 011."""

    AUTHORIZATION_CODE = "OAUTH2_AUTHORIZATION_CODE"
    IMPLICIT = "OAUTH2_IMPLICIT_GRANT"
    RESOURCE_OWNER = "OAUTH2_RESOURCE_OWNER"
    CLIENT_CREDENTIALS = "OAUTH2_CLIENT_CREDENTIALS"


class OAuth2Info(MecModel):
    """How OAuth 2.0 protects a service. `tokenEndpoint` is written by the platform, whatever came in."""

    grant_types: Annotated[list[GrantType], BeforeValidator(one_or_many)] = Field(min_length=1, max_length=4)
    token_endpoint: Text | None = None


class SecurityInfo(MecModel):
    """How a transport is secured."""

    o_auth2_info: OAuth2Info | None = Field(default=None, alias="oAuth2Info")


class Address(MecModel):
    """A host and a port."""

    host: Text
    port: int = Field(ge=1, le=65535)


class EndPointInfo(MecModel):
    """Where a service answers: exactly one of the four forms (MEC 011 clause 8.1.5.3)."""

    uris: list[Text] | None = Field(default=None, min_length=1, max_length=MAX_LIST)
    fqdn: list[Text] | None = Field(default=None, min_length=1, max_length=MAX_LIST)
    addresses: list[Address] | None = Field(default=None, min_length=1, max_length=MAX_LIST)
    alternative: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        forms = (self.uris, self.fqdn, self.addresses, self.alternative)
        if sum(form is not None for form in forms) != 1:
            raise ValueError("exactly one of uris, fqdn, addresses and alternative is needed")
        return self


class TransportInfo(MecModel):
    """A transport of a service. `security` may be left out, as the examples of the standard do."""

    id: Identifier
    name: Text
    description: Text | None = None
    type: TransportType
    protocol: Text
    version: Text
    endpoint: EndPointInfo
    security: SecurityInfo = SecurityInfo()
    impl_specific_info: Any = None
