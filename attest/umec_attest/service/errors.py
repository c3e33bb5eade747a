"""Errors of the attestation service, beside those of the pure checks (`umec_attest.errors`).

AttestError
├── NodeUnknown, NodeRevoked, NodeConflict (node-*, ek-enrolled-elsewhere), StandingConflict, NodeClassOther
├── VerifierBusy         verifier-busy
├── EvidenceUnknown      evidence-unknown
├── TicketRefused        ticket-*
├── ActivationRefused    enrolment-unknown, activation-*
├── EvidenceRefused      nonce-*, evidence-*, boot-log-*, runtime-list-continues, start-log-part-too-long,
│                         reference-missing
└── SecretRefused        secret-*, secrets-full
"""

import math

from umec_attest.errors import AttestError
from umec_attest.ima.checkpoint import ImaCheckpoint
from umec_attest.starts.checkpoint import StartCheckpoint
from umec_core.errors import Kind

__all__ = [
    "ActivationExpired",
    "ActivationRefused",
    "ActivationSecretMismatch",
    "ActivationUsed",
    "AssignmentMissing",
    "BootLogRequired",
    "DeviceEnrolledElsewhere",
    "DeviceProofMismatch",
    "EkEnrolledElsewhere",
    "EnrolmentUnknown",
    "EnrolmentsBusy",
    "EvidenceRefused",
    "EvidenceReplayed",
    "EvidenceStale",
    "EvidenceUnknown",
    "FeedBehind",
    "NodeClassOther",
    "NodeEnrolled",
    "NodeOtherDevice",
    "NodeOtherEk",
    "NodeRevoked",
    "NodeUnknown",
    "NonceExpired",
    "NonceSuperseded",
    "NonceUnknown",
    "ReadmitNeedsBoot",
    "ReferenceConflict",
    "ReferenceGrace",
    "ReferenceMissing",
    "ReferencePcrs",
    "ResetNotPending",
    "RuntimeListContinues",
    "SecretOtherTpm",
    "SecretRefused",
    "SecretStanding",
    "SecretSuperseded",
    "SecretUnknown",
    "SecretUnreadable",
    "SecretsFull",
    "StandingConflict",
    "StartLogPartTooLong",
    "TicketEkMismatch",
    "TicketExpired",
    "TicketNodeMismatch",
    "TicketOutdated",
    "TicketRefused",
    "TicketRequired",
    "TicketUnknown",
    "TicketUsed",
    "TpmNotAllowed",
    "VerifierBusy",
]


class NodeUnknown(AttestError):
    """There is no such node, or none that the caller may see."""

    code = "node-unknown"
    kind = Kind.NOT_FOUND


class NodeRevoked(AttestError):
    """The node is revoked; only a new enrolment, which an operator starts with a ticket, brings it back."""

    code = "node-revoked"
    kind = Kind.FORBIDDEN


class NodeEnrolled(AttestError):
    """The node is enrolled already: other keys need a ticket that an operator made for this."""

    code = "node-enrolled"
    kind = Kind.CONFLICT


class NodeOtherEk(AttestError):
    """The node is enrolled with another TPM."""

    code = "node-other-ek"
    kind = Kind.CONFLICT


class NodeOtherDevice(AttestError):
    """The node is enrolled with the identity of another device, or has shown one that is missing now."""

    code = "node-other-device"
    kind = Kind.CONFLICT


class DeviceEnrolledElsewhere(AttestError):
    """The device, by its IAK or IDevID, is enrolled as another node."""

    code = "device-enrolled-elsewhere"
    kind = Kind.CONFLICT


class EkEnrolledElsewhere(AttestError):
    """The TPM is enrolled as another node."""

    code = "ek-enrolled-elsewhere"
    kind = Kind.CONFLICT


class StandingConflict(AttestError):
    """The standing of the node does not allow this."""

    code = "standing-conflict"
    kind = Kind.CONFLICT


class FeedBehind(AttestError):
    """Somebody knows more changes than this service remembers: it lost some, and must not be believed."""

    code = "standing-feed-behind"
    kind = Kind.CONFLICT


class ReadmitNeedsBoot(StandingConflict):
    """A node that was found untrusted comes back by good evidence of a new boot."""

    code = "readmit-needs-boot"


class AssignmentMissing(AttestError):
    """Nobody has said yet to which tenant the node belongs and which image it runs."""

    code = "node-assignment-missing"
    kind = Kind.CONFLICT


class TicketRefused(AttestError):
    """A ticket that lets nobody in."""

    code = "ticket-refused"
    kind = Kind.FORBIDDEN


class TicketRequired(TicketRefused):
    """No ticket was shown, no operator has allowed this TPM, and the site takes no node that waits for approval."""

    code = "ticket-required"


class TpmNotAllowed(AttestError):
    """No TPM with this endorsement key is allowed to enrol without a ticket."""

    code = "tpm-not-allowed"
    kind = Kind.NOT_FOUND


class TicketUnknown(TicketRefused):
    """Nobody here made this ticket."""

    code = "ticket-unknown"


class TicketExpired(TicketRefused):
    """The time of the ticket is over."""

    code = "ticket-expired"


class TicketUsed(TicketRefused):
    """The ticket was used already."""

    code = "ticket-used"


class TicketOutdated(TicketRefused):
    """The ticket was made before the node fell; who made it did not know."""

    code = "ticket-outdated"


class TicketNodeMismatch(TicketRefused):
    """The ticket is for another node."""

    code = "ticket-node-mismatch"


class TicketEkMismatch(TicketRefused):
    """The ticket is for another TPM."""

    code = "ticket-ek-mismatch"


class ActivationRefused(AttestError):
    """An activation that proves nothing."""

    code = "activation-refused"


class EnrolmentUnknown(ActivationRefused):
    """There is no such enrolment, or it is over since long."""

    code = "enrolment-unknown"
    kind = Kind.NOT_FOUND


class EnrolmentsBusy(ActivationRefused):
    """More enrolments are under way than this service keeps."""

    code = "enrolments-busy"
    kind = Kind.TOO_MANY


class ActivationExpired(ActivationRefused):
    """The deadline of the activation is over."""

    code = "activation-expired"


class ActivationUsed(ActivationRefused):
    """The one attempt to activate was made."""

    code = "activation-used"
    kind = Kind.CONFLICT


class DeviceProofMismatch(ActivationRefused):
    """The IAK certified something else than what the enrolment has shown."""

    code = "device-proof-mismatch"


class ActivationSecretMismatch(ActivationRefused):
    """The secret is not the one that was sealed for this TPM and attestation key."""

    code = "activation-secret-mismatch"


class VerifierBusy(AttestError):
    """The verifier has more to do than it gets done in time; `retry_after` says when to come back."""

    code = "verifier-busy"
    kind = Kind.UNAVAILABLE

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, advice=f"come back in {retry_after} s")
        self.retry_after = retry_after


class EvidenceRefused(AttestError):
    """Evidence that is not about this node's state now; it says nothing, so it changes nothing."""

    code = "evidence-refused"


class NonceUnknown(EvidenceRefused):
    """The challenge is not one of ours for this node and its attestation key."""

    code = "nonce-unknown"


class NonceExpired(EvidenceRefused):
    """The deadline of the challenge is over."""

    code = "nonce-expired"


class NonceSuperseded(EvidenceRefused):
    """The challenge is of an earlier round, another policy or another baseline."""

    code = "nonce-superseded"
    kind = Kind.CONFLICT


class EvidenceStale(EvidenceRefused):
    """While evidence was judged, an operator changed what it was judged by: image, reference set, announcements."""

    code = "evidence-stale"
    kind = Kind.CONFLICT


class EvidenceReplayed(EvidenceRefused):
    """The challenge was answered already."""

    code = "evidence-replayed"
    kind = Kind.CONFLICT


class EvidenceUnknown(AttestError):
    """No evidence is kept under this hash for this node: it did not contradict, or its days are over."""

    code = "evidence-unknown"
    kind = Kind.NOT_FOUND


class BootLogRequired(EvidenceRefused):
    """The node booted since its last boot log, or that log is not here any more: send the whole one.

    `booted`: an authentic quote is of another boot than what is kept. What was judged in this one stays good.
    """

    code = "boot-log-required"

    def __init__(self, detail: str, *, advice: str | None = None, booted: bool = False) -> None:
        super().__init__(detail, advice=advice)
        self.booted = booted


class RuntimeListContinues(EvidenceRefused):
    """A good part of a list, or a log of starts, that is too long for one body: nothing is judged before the rest.

    `checkpoint` says up to where it is judged.
    """

    code = "runtime-list-continues"

    def __init__(self, checkpoint: ImaCheckpoint | StartCheckpoint) -> None:
        super().__init__(
            f"{checkpoint.entries} entries are here", advice="ask for a new challenge, and go on from there"
        )
        self.checkpoint = checkpoint


class StartLogPartTooLong(EvidenceRefused):
    """A part of a log of starts with more lines than any agent sends at once: none of them is looked at."""

    code = "start-log-part-too-long"


class ReferenceMissing(EvidenceRefused):
    """There is no reference set for the image that the node is to run."""

    code = "reference-missing"
    kind = Kind.UNAVAILABLE


class ReferenceConflict(AttestError):
    """Another reference set has this image and version."""

    code = "reference-conflict"
    kind = Kind.CONFLICT


class ReferenceGrace(AttestError):
    """A grace that nobody signed, that is longer than what was signed, or in which no older version counts."""

    code = "reference-grace"


class ReferencePcrs(AttestError):
    """A reference set that says nothing about a PCR that nodes are asked for, or expects one that they are not."""

    code = "reference-pcrs"


class VersionNotBarred(AttestError):
    """The node may run that version of its image as it is."""

    code = "version-not-barred"
    kind = Kind.CONFLICT


class NodeClassOther(AttestError):
    """The node is not of the class that this is about."""

    code = "node-class-other"
    kind = Kind.CONFLICT


class ResetNotPending(StandingConflict):
    """There is no boot of the node that somebody has to clear."""

    code = "reset-not-pending"


class AnnouncementTooSoon(StandingConflict):
    """The node announced another boot of its own just now; `retry_after` says when to come back."""

    code = "announcement-too-soon"
    kind = Kind.TOO_MANY

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail, advice=f"come back in {math.ceil(retry_after)} s, or let an operator announce it")
        self.retry_after = retry_after


class SecretRefused(AttestError):
    """A secret that is not stored, or not released."""

    code = "secret-refused"
    kind = Kind.FORBIDDEN


class SecretUnknown(SecretRefused):
    """The node has no secret of this name; whether another node has is nobody's business."""

    code = "secret-unknown"
    kind = Kind.NOT_FOUND


class SecretStanding(SecretRefused):
    """The node does not stand well enough for the secret."""

    code = "secret-standing"


class SecretSuperseded(SecretRefused):
    """The standing of the node changed between its evidence and the release."""

    code = "secret-superseded"
    kind = Kind.CONFLICT


class SecretOtherTpm(SecretRefused):
    """The secret was stored for another TPM than the node has now."""

    code = "secret-other-tpm"


class SecretsFull(SecretRefused):
    """The node has as many secrets as a node may have."""

    code = "secrets-full"
    kind = Kind.TOO_MANY


class SecretUnreadable(SecretRefused):
    """What is kept of a secret does not open with the key of this service."""

    code = "secret-unreadable"
    kind = Kind.UNAVAILABLE
