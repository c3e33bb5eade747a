"""What the MEC host refuses.

PlatformError
├── AppdInvalid, PackageInvalid, RuleInvalid, QueryInvalid, AnswerInvalid                                      malformed
├── TenantForeign, InstanceForeign, NotANode                    known, and not allowed
├── RuleUnsupported, AddressForeign, NameForeign, RuleFixed, HostFallen, HostForeign, PermissionUnknown,
│   StoppedMeanwhile, RuleTooLarge, RuleNoRoom,
│   SubscriptionUnsupported, TerminationUnsupported, ServiceUndeclared, OperationFailed                        refused
├── NoTenant, NoHost, NoRelay, NoPackage, NoInstance, NoOperation, NoService, NoRule, NoSubscription,
│   NoTransport                                                                                                not found
├── AlreadyThere, GrantOverlaps, PackageState, InstanceState, ConfirmationState, RelayReplaced,
│   AnswerLate                                                                                                 conflict
├── EtagDiffers                                                 precondition
└── HostSilent                                                  unavailable
"""

from umec_core.errors import Conflict, Forbidden, Invalid, Kind, NotFound, Refused, UmecError, Unavailable

__all__ = [
    "AddressForeign",
    "AlreadyThere",
    "AnswerInvalid",
    "AnswerLate",
    "AppdInvalid",
    "ConfirmationState",
    "EtagDiffers",
    "GrantOverlaps",
    "HostFallen",
    "HostForeign",
    "HostSilent",
    "InstanceForeign",
    "InstanceState",
    "NameForeign",
    "NoHost",
    "NoInstance",
    "NoOperation",
    "NoPackage",
    "NoRelay",
    "NoRule",
    "NoService",
    "NoSubscription",
    "NoTenant",
    "NoTransport",
    "NotANode",
    "OperationFailed",
    "PackageInvalid",
    "PackageState",
    "PermissionUnknown",
    "PlatformError",
    "QueryInvalid",
    "RelayReplaced",
    "RuleFixed",
    "RuleInvalid",
    "RuleNoRoom",
    "RuleTooLarge",
    "RuleUnsupported",
    "ScopeMissing",
    "ServiceUndeclared",
    "StoppedMeanwhile",
    "SubscriptionUnsupported",
    "TenantForeign",
    "TerminationUnsupported",
]


class PlatformError(UmecError):
    """Something that the MEC host refuses."""


class AppdInvalid(PlatformError, Invalid):
    """An application descriptor does not follow MEC 010-2."""

    code = "appd-invalid"


class PackageInvalid(PlatformError, Invalid):
    """An application package is not a readable archive with one descriptor."""

    code = "package-invalid"


class RuleInvalid(PlatformError, Invalid):
    """A traffic or DNS rule is malformed."""

    code = "rule-invalid"


class QueryInvalid(PlatformError, Invalid):
    """A query parameter is unknown, malformed or excluded by another one (MEC 009)."""

    code = "query-invalid"


class ScopeMissing(PlatformError, Forbidden):
    """The token lacks every scope that would allow this."""

    code = "token-scope"


class TenantForeign(PlatformError, Forbidden):
    """The caller acts for another tenant."""

    code = "tenant-foreign"


class InstanceForeign(PlatformError, Forbidden):
    """The caller is another application instance than the one of the resource."""

    code = "instance-foreign"


class RuleUnsupported(PlatformError, Refused):
    """The data plane cannot enforce what the rule asks for, so it is not pretended."""

    code = "rule-unsupported"


class RuleTooLarge(PlatformError, Refused):
    """A rule names more addresses and ports than one rule may."""

    code = "rule-too-large"


class RuleNoRoom(PlatformError, Refused):
    """The rules of a tenant take more of a host than its share."""

    code = "rule-no-room"


class AddressForeign(PlatformError, Refused):
    """A rule touches addresses that are not the tenant's."""

    code = "address-not-of-tenant"


class NameForeign(PlatformError, Refused):
    """A DNS rule is about a name that is not the tenant's."""

    code = "name-not-of-tenant"


class RuleFixed(PlatformError, Refused):
    """A rule was admitted with its descriptor: an application changes its state and nothing else."""

    code = "rule-fixed"


class PermissionUnknown(PlatformError, Refused):
    """A descriptor asks for a permission that no application can have."""

    code = "permission-not-grantable"


class HostFallen(PlatformError, Refused):
    """The node of the host is not trusted at this moment."""

    code = "host-not-trusted"


class HostForeign(PlatformError, Refused):
    """The host is a node of another tenant, which fetches that tenant's images only."""

    code = "host-foreign"


class StoppedMeanwhile(PlatformError, Refused):
    """What an operation was about went away while it ran."""

    code = "operation-overtaken"


class OperationFailed(PlatformError, Refused):
    """Why an operation failed, as it was written down: `code` is that of the original."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # type: ignore[misc]  # of this very failure, not of the class


class SubscriptionUnsupported(PlatformError, Refused):
    """The platform delivers no notifications yet, so it takes no subscription that it would not serve."""

    code = "subscription-unsupported"


class TerminationUnsupported(PlatformError, Refused):
    """The platform cannot tell an application that it has to end, so it does not pretend to be graceful."""

    code = "termination-unsupported"


class ServiceUndeclared(PlatformError, Refused):
    """A service that the descriptor, which names what the application produces, does not name."""

    code = "service-not-declared"


class NoTenant(PlatformError, NotFound):
    """There is no such tenant."""

    code = "tenant-unknown"


class NoHost(PlatformError, NotFound):
    """There is no such host."""

    code = "host-unknown"


class NoPackage(PlatformError, NotFound):
    """There is no such package for this caller."""

    code = "package-unknown"


class NoInstance(PlatformError, NotFound):
    """There is no such application instance for this caller."""

    code = "instance-unknown"


class NoOperation(PlatformError, NotFound):
    """There is no such operation occurrence for this caller."""

    code = "operation-unknown"


class NoService(PlatformError, NotFound):
    """There is no such service for this caller."""

    code = "service-unknown"


class NoRule(PlatformError, NotFound):
    """The instance has no such rule."""

    code = "rule-unknown"


class NoSubscription(PlatformError, NotFound):
    """The instance has no such subscription."""

    code = "subscription-unknown"


class NoTransport(PlatformError, NotFound):
    """The platform offers no such transport."""

    code = "transport-unknown"


class AlreadyThere(PlatformError, Conflict):
    """The identifier is taken."""

    code = "already-exists"


class GrantOverlaps(PlatformError, Conflict):
    """An address range or a name is already granted to another tenant."""

    code = "grant-overlaps"


class PackageState(PlatformError, Conflict):
    """The package is not in a state that allows this."""

    code = "package-state"


class InstanceState(PlatformError, Conflict):
    """The instance is not in a state that allows this."""

    code = "instance-state"


class NotANode(PlatformError, Forbidden):
    """Somebody who is no node asks for what only a node has."""

    code = "not-a-node"


class AnswerInvalid(PlatformError, Invalid):
    """What a relay hands in is no answer of a netd."""

    code = "relay-answer-invalid"


class NoRelay(PlatformError, NotFound):
    """The node has no session of a relay: the platform began anew, perhaps."""

    code = "relay-unknown"


class RelayReplaced(PlatformError, Conflict):
    """Another relay of the same node came after this one."""

    code = "relay-replaced"


class AnswerLate(PlatformError, Conflict):
    """Nobody waits for this answer any more."""

    code = "relay-answer-late"


class ConfirmationState(PlatformError, Conflict):
    """The platform does not wait for this confirmation."""

    code = "confirmation-not-expected"


class EtagDiffers(PlatformError):
    """The resource is not the one that If-Match names."""

    code = "etag-differs"
    kind = Kind.PRECONDITION


class HostSilent(PlatformError, Unavailable):
    """The host does not answer."""

    code = "host-silent"
