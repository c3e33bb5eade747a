"""Application support on the wire (MEC 011 clause 7.1)."""

from enum import Enum, unique
from typing import Literal

from pydantic import Field

from umec_platform.mec import Identifier, MecModel, Text
from umec_platform.services.schemas import SubscriptionLinks

__all__ = [
    "AppReadyConfirmation",
    "AppTerminationConfirmation",
    "AppTerminationNotificationSubscription",
    "OperationAction",
]


@unique
class OperationAction(Enum):
    """How an application ends."""

    STOPPING = "STOPPING"
    TERMINATING = "TERMINATING"


class AppReadyConfirmation(MecModel):
    """The application is up."""

    indication: Literal["READY"]


class AppTerminationConfirmation(MecModel):
    """The application has ended its work."""

    operation_action: OperationAction


class AppTerminationNotificationSubscription(MecModel):
    """A wish to hear when the application has to end."""

    subscription_type: Literal["AppTerminationNotificationSubscription"]
    callback_reference: Text
    app_instance_id: Identifier
    links: SubscriptionLinks | None = Field(default=None, alias="_links")
