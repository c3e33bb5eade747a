"""The service registry on the wire (MEC 011 clause 8.1)."""

from enum import Enum, unique
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from umec_platform.mec import (
    MAX_LIST,
    CategoryRef,
    Identifier,
    LinkType,
    MecModel,
    SerializerType,
    Text,
    TransportInfo,
)

__all__ = [
    "AVAILABILITY_SUBSCRIPTION",
    "MAX_LIVENESS_INTERVAL",
    "FilteringCriteria",
    "LocalityType",
    "SerAvailabilityNotificationSubscription",
    "ServiceInfo",
    "ServiceInput",
    "ServiceLinks",
    "ServiceLivenessUpdate",
    "ServiceState",
]

AVAILABILITY_SUBSCRIPTION: Final = "SerAvailabilityNotificationSubscription"
MAX_LIVENESS_INTERVAL: Final = 86_400
"""Seconds that an application may propose between two heartbeats: a day."""


@unique
class ServiceState(Enum):
    """Whether a service can be used."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    SUSPENDED = "SUSPENDED"


@unique
class LocalityType(Enum):
    """How far a locality reaches."""

    MEC_SYSTEM = "MEC_SYSTEM"
    MEC_HOST = "MEC_HOST"
    NFVI_POP = "NFVI_POP"
    ZONE = "ZONE"
    ZONE_GROUP = "ZONE_GROUP"
    NFVI_NODE = "NFVI_NODE"


class _Described(MecModel):
    """What a service says about itself, coming in and going out, with the defaults of the standard."""

    ser_instance_id: Identifier | None = None
    ser_name: Text
    ser_category: CategoryRef | None = None
    version: Text
    state: ServiceState
    serializer: SerializerType
    scope_of_locality: LocalityType = LocalityType.MEC_HOST
    consumed_local_only: bool = True
    is_local: bool = True
    liveness_interval: int | None = Field(default=None, ge=0, le=MAX_LIVENESS_INTERVAL)


class ServiceLinks(MecModel):
    """Links of a service; `liveness` is there if the platform wants heartbeats."""

    self: LinkType
    liveness: LinkType | None = None


class ServiceInput(_Described):
    """A service as its application describes it: `transportId` or `transportInfo`, never both (note 2)."""

    transport_id: Identifier | None = None
    transport_info: TransportInfo | None = None
    links: ServiceLinks | None = Field(default=None, alias="_links")

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        if (self.transport_id is None) == (self.transport_info is None):
            raise ValueError("either transportId or transportInfo is needed, not both")
        return self


class ServiceInfo(_Described):
    """A service as the platform shows it: always with its transport and its links."""

    transport_info: TransportInfo
    links: ServiceLinks = Field(alias="_links")


class ServiceLivenessUpdate(MecModel):
    """A heartbeat: an application can only say that its service is alive."""

    state: Literal["ACTIVE"]


class FilteringCriteria(MecModel):
    """Which services a subscription is about: one of ids, names, categories; and states and locality."""

    ser_instance_ids: list[Identifier] | None = Field(default=None, min_length=1, max_length=MAX_LIST)
    ser_names: list[Text] | None = Field(default=None, min_length=1, max_length=MAX_LIST)
    ser_categories: list[CategoryRef] | None = Field(default=None, min_length=1, max_length=MAX_LIST)
    states: list[ServiceState] | None = Field(default=None, min_length=1, max_length=3)
    is_local: bool | None = None

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        kinds = (self.ser_instance_ids, self.ser_names, self.ser_categories)
        if sum(kind is not None for kind in kinds) > 1:
            raise ValueError("at most one of serInstanceIds, serNames and serCategories may be present")
        return self


class SubscriptionLinks(MecModel):
    """Links of a subscription."""

    self: LinkType


class SerAvailabilityNotificationSubscription(MecModel):
    """A wish to hear when services come, change or go."""

    subscription_type: Literal["SerAvailabilityNotificationSubscription"]
    callback_reference: Text
    filtering_criteria: FilteringCriteria | None = None
    links: SubscriptionLinks | None = Field(default=None, alias="_links")
