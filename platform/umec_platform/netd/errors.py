"""Everything that netd refuses.

NetdError
├── MessageInvalid         invalid-input          a request that does not parse
├── MessageTooLarge        message-too-large      a line longer than `messages.MAX_LINE`
├── PeerRefused            peer-refused           the caller's uid is not on the list
├── OperationFailed        netd-failed            the kernel or a child process said no
│   ├── NftFailed          nft-failed
│   ├── LinkFailed         link-failed
│   ├── ResolverFailed     resolver-failed
│   └── RuntimeFailed      runtime-failed
├── NetdUnreachable        netd-unreachable       nobody answers on the socket
├── RemoteRefusal          the code of netd       raised by `client.NetdClient`
├── NetdRunning            netd-running           another netd has this network namespace
├── StandingDegraded       standing-degraded      the node may keep what it runs and start nothing new
├── StandingLapsed         standing-lapsed        the node keeps what it has until its lease ends
├── LeaseExpired           lease-expired          no fresh statement about the node
├── DecisionSignature      decision-signature     not signed by the platform
├── DecisionExpired        decision-expired
├── DecisionDigest         decision-digest
├── DecisionNode           decision-node
├── DecisionInstance       decision-instance
├── LayerDigest            layer-digest           a file is not what its digest says
├── ImageInvalid           image-invalid          an image that cannot be unpacked safely
├── AddressNotOfTenant     address-not-of-tenant
├── RuleTooBroad           rule-too-broad         a rule reaches beyond its tenant
├── RuleOverlaps           rule-overlaps          another rule already speaks for these packets
├── NameTaken              dns-name-taken
├── TenantUnknown          tenant-unknown
├── SubnetRefused          subnet-refused
├── InstanceExists         instance-exists
├── InstanceStopped        instance-stopped       it was stopped while it was being started
└── StartUnmeasured        start-unmeasured       the node's agent did not measure the start, so there is none

Statements about the node are refused with the errors of `umec_core.standing` (standing-invalid, standing-rollback,
standing-fallen).
"""

from umec_core.errors import Conflict, Forbidden, Invalid, Kind, NotFound, Refused, UmecError, Unavailable

__all__ = [
    "AddressNotOfTenant",
    "DecisionDigest",
    "DecisionExpired",
    "DecisionInstance",
    "DecisionNode",
    "DecisionSignature",
    "ImageInvalid",
    "InstanceExists",
    "InstanceStopped",
    "LayerDigest",
    "LeaseExpired",
    "LinkFailed",
    "MessageInvalid",
    "MessageTooLarge",
    "NameTaken",
    "NetdError",
    "NetdRunning",
    "NetdUnreachable",
    "NftFailed",
    "OperationFailed",
    "PeerRefused",
    "RemoteRefusal",
    "ResolverFailed",
    "RuleOverlaps",
    "RuleTooBroad",
    "RuntimeFailed",
    "StandingDegraded",
    "StandingLapsed",
    "StartUnmeasured",
    "SubnetRefused",
    "TenantUnknown",
]


class NetdError(UmecError):
    """Anything that netd refuses."""


class MessageInvalid(NetdError, Invalid):
    """A request that does not parse."""

    code = "invalid-input"


class MessageTooLarge(NetdError, Invalid):
    """A request longer than a line may be."""

    code = "message-too-large"
    kind = Kind.TOO_LARGE


class PeerRefused(NetdError, Forbidden):
    """The uid at the other end of the socket is not on the list."""

    code = "peer-refused"


class OperationFailed(NetdError, Unavailable):
    """The kernel or a child process did not do what was asked."""

    code = "netd-failed"


class NftFailed(OperationFailed):
    """Nftables refused a batch: nothing of it is in force."""

    code = "nft-failed"


class LinkFailed(OperationFailed):
    """An interface could not be made, moved or removed."""

    code = "link-failed"


class ResolverFailed(OperationFailed):
    """Unbound did not start or did not take a change."""

    code = "resolver-failed"


class RuntimeFailed(OperationFailed):
    """The container runtime (runc) failed."""

    code = "runtime-failed"


class NetdUnreachable(NetdError, Unavailable):
    """Nobody answers on the socket."""

    code = "netd-unreachable"


class RemoteRefusal(NetdError):
    """A refusal of netd, told again at the other end of its socket: `code` and `kind` are those of the original."""

    def __init__(self, code: str, kind: str | None, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # type: ignore[misc]  # of this very refusal, not of the class
        self.kind = Kind(kind) if kind in {known.value for known in Kind} else Kind.REFUSED  # type: ignore[misc]


class NetdRunning(NetdError, Conflict):
    """Another netd has this network namespace."""

    code = "netd-running"


class StandingDegraded(NetdError, Refused):
    """A degraded node keeps what it runs and starts nothing new."""

    code = "standing-degraded"


class StandingLapsed(NetdError, Refused):
    """A silent node keeps what it has until its lease ends, and gets nothing new."""

    code = "standing-lapsed"


class InstanceStopped(NetdError, Conflict):
    """An instance was stopped while it was being started."""

    code = "instance-stopped"


class LeaseExpired(NetdError, Refused):
    """No fresh statement says that the node stands."""

    code = "lease-expired"


class DecisionSignature(NetdError, Refused):
    """A decision that the platform did not sign."""

    code = "decision-signature"


class DecisionExpired(NetdError, Refused):
    """A decision whose time is over, or has not begun."""

    code = "decision-expired"


class DecisionDigest(NetdError, Refused):
    """A decision about another image."""

    code = "decision-digest"


class DecisionNode(NetdError, Refused):
    """A decision for another node."""

    code = "decision-node"


class DecisionInstance(NetdError, Refused):
    """A decision for another instance or tenant."""

    code = "decision-instance"


class LayerDigest(NetdError, Refused):
    """A file of an image is not what its digest says."""

    code = "layer-digest"


class ImageInvalid(NetdError, Refused):
    """An image that is malformed, too large, or that tries to leave its root file system."""

    code = "image-invalid"


class AddressNotOfTenant(NetdError, Forbidden):
    """An address that does not belong to the tenant of the rule."""

    code = "address-not-of-tenant"


class RuleTooBroad(NetdError, Forbidden):
    """A rule about packets that are not its tenant's."""

    code = "rule-too-broad"


class RuleOverlaps(NetdError, Conflict):
    """Another rule already speaks for some of these packets."""

    code = "rule-overlaps"


class NameTaken(NetdError, Conflict):
    """Another rule already answers for this name."""

    code = "dns-name-taken"


class TenantUnknown(NetdError, NotFound):
    """The tenant has no network here."""

    code = "tenant-unknown"


class SubnetRefused(NetdError, Conflict):
    """A subnet outside the pool, of another size, taken, or none left."""

    code = "subnet-refused"


class InstanceExists(NetdError, Conflict):
    """An instance of this name runs already."""

    code = "instance-exists"


class StartUnmeasured(NetdError, Unavailable):
    """The node's agent did not measure the start of an instance into the TPM: what nobody can see does not start."""

    code = "start-unmeasured"
