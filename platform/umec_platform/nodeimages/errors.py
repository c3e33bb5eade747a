"""Why an order or a report of a node image is not taken.

PlatformError
├── FleetOther      node-image-other              the image is of another name, or another tenant's
├── NoImageOrder    node-image-order-unknown      nothing is ordered there
└── ReportTooSoon   node-image-report-too-soon    the node has just reported
"""

from umec_core.errors import Kind, NotFound, Refused
from umec_platform.errors import PlatformError

__all__ = ["FleetOther", "NoImageOrder", "ReportTooSoon"]


class FleetOther(PlatformError, Refused):
    """The image is of another name than the fleet's, or of another tenant."""

    code = "node-image-other"


class NoImageOrder(PlatformError, NotFound):
    """No image is ordered there."""

    code = "node-image-order-unknown"


class ReportTooSoon(PlatformError):
    """The node has just reported; `retry_after` says when to come back."""

    code = "node-image-report-too-soon"
    kind = Kind.TOO_MANY

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
