"""The application descriptor (AppD, MEC 010-2 clause 6.2.1): the part that this platform acts on.

`swImageDescriptor` names exactly one image by digest, `TENANT/NAME@sha256:HEX`: what is admitted is what was named.
Members of the standard that are not listed here are kept and have no effect.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from umec_platform.errors import AppdInvalid
from umec_platform.mec import (
    MAX_LIST,
    CategoryRef,
    Identifier,
    MecModel,
    SerializerType,
    Text,
    faults,
    one_or_many,
)
from umec_platform.rules.schemas import DnsRuleDescriptor, TrafficRuleDescriptor

__all__ = [
    "GRANTABLE",
    "MAX_APPD",
    "AppD",
    "ImageReference",
    "ServiceDependency",
    "ServiceDescriptor",
    "SwImageDescriptor",
    "appd_sha256",
    "parse_appd",
    "parse_image_reference",
]

MAX_APPD: Final = 256 * 1024
"""Bytes of a descriptor: 64 rules of each kind with their filters fit several times."""

GRANTABLE: Final = frozenset({"mec:services.read", "mec:services.write", "mec:app", "mec:traffic", "mec:dns"})
"""The permissions that an application can ask for."""

_REFERENCE: Final = re.compile(
    r"(?P<repository>[a-z0-9][a-z0-9-]{0,62}(?:/[a-z0-9]+(?:[._-][a-z0-9]+){0,16}){1,4})@(?P<digest>sha256:[0-9a-f]{64})"
)
_MAX_REFERENCE: Final = 512
_MAX_DEPTH: Final = 32
"""Nesting of a descriptor; the deepest path of the standard has six levels."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image by its digest. `repository` begins with the tenant."""

    repository: str
    digest: str

    @property
    def tenant(self) -> str:
        """The tenant whose repository it is."""
        return self.repository.partition("/")[0]


def parse_image_reference(text: str) -> ImageReference:
    """Return the reference of `TENANT/NAME@sha256:HEX`; raises `AppdInvalid` for anything else, tags included."""
    match = _REFERENCE.fullmatch(text) if len(text) <= _MAX_REFERENCE else None
    if match is None:
        raise AppdInvalid(
            "swImage is not TENANT/NAME@sha256:HEX", advice="Name the image by its digest: a tag can be moved."
        )
    return ImageReference(match["repository"], match["digest"])


class SwImageDescriptor(MecModel):
    """The software image of an application."""

    id: Identifier | None = None
    name: Text | None = None
    version: Text | None = None
    sw_image: Text

    @field_validator("sw_image")
    @classmethod
    def _by_digest(cls, value: str) -> str:
        try:
            parse_image_reference(value)
        except AppdInvalid as error:
            raise ValueError(error.detail) from None
        return value


class TransportsSupported(MecModel):
    """A transport that a produced service offers, with its serialisers."""

    transport: dict[str, Any] | None = None
    serializers: list[SerializerType] = Field(min_length=1, max_length=3)


class ServiceDescriptor(MecModel):
    """A service that the application will register."""

    ser_name: Text
    ser_category: CategoryRef | None = None
    version: Text
    transports_supported: list[TransportsSupported] | None = Field(default=None, max_length=MAX_LIST)


class ServiceDependency(MecModel):
    """A service that the application needs or can use."""

    ser_name: Text
    ser_category: CategoryRef | None = None
    version: Text


class AppD(MecModel):
    """An application descriptor."""

    app_d_id: Identifier
    app_name: Text
    app_provider: Text
    app_soft_version: Text
    app_d_version: Text
    mec_version: Annotated[list[Text], BeforeValidator(one_or_many)] = Field(min_length=1, max_length=MAX_LIST)
    app_description: Text | None = None
    sw_image_descriptor: Annotated[list[SwImageDescriptor], BeforeValidator(one_or_many)] = Field(
        min_length=1, max_length=1
    )
    virtual_compute_descriptor: dict[str, Any] | None = None
    app_traffic_rule: list[TrafficRuleDescriptor] = Field(default=[], max_length=MAX_LIST)
    app_dns_rule: list[DnsRuleDescriptor] = Field(default=[], max_length=MAX_LIST, alias="appDNSRule")
    app_service_produced: list[ServiceDescriptor] = Field(default=[], max_length=MAX_LIST)
    app_service_required: list[ServiceDependency] = Field(default=[], max_length=MAX_LIST)
    app_service_optional: list[ServiceDependency] = Field(default=[], max_length=MAX_LIST)
    requested_permissions: list[Text] = Field(default=[], max_length=MAX_LIST)

    @property
    def image(self) -> ImageReference:
        """The one image of the application."""
        return parse_image_reference(self.sw_image_descriptor[0].sw_image)

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        _distinct("trafficRuleId", (rule.traffic_rule_id for rule in self.app_traffic_rule))
        _distinct("dnsRuleId", (rule.dns_rule_id for rule in self.app_dns_rule))
        _distinct("requestedPermissions", self.requested_permissions)
        return self


def _distinct(what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} holds a value twice")
        seen.add(value)


def parse_appd(content: bytes) -> AppD:
    """Return the descriptor that the JSON text is; raises `AppdInvalid` for anything else.

    JSON as RFC 8259 wants it to be exchanged: UTF-8, no member twice, no NaN.
    """
    if len(content) > MAX_APPD:
        raise AppdInvalid(f"the descriptor has {len(content)} bytes; at most {MAX_APPD} are read")
    try:
        document = json.loads(content.decode(), object_pairs_hook=_members, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AppdInvalid(f"the descriptor is no JSON: {type(error).__name__}") from None
    _shallow(document, _MAX_DEPTH)
    try:
        return AppD.model_validate(document)
    except ValidationError as error:
        raise AppdInvalid(faults(error)) from None


def appd_sha256(appd: AppD) -> str:
    """Return the hex SHA-256 of the canonical descriptor: what an admission decision binds."""
    text = json.dumps(appd.wire(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


def _no_constant(_: str) -> object:
    raise ValueError("NaN and Infinity are no JSON")


def _shallow(value: object, depth: int) -> None:
    if depth == 0:
        raise AppdInvalid(f"the descriptor nests deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        for member in value.values():
            _shallow(member, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _shallow(item, depth - 1)
