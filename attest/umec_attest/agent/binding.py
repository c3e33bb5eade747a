"""Node keys that sign only in states of their image that its owner approved: how one is made, and how it signs.

The owner's key is part of the image, thus measured; the approval of what runs comes with the image, and is believed by
its signature alone. With each image comes another one, which opens the same key. Who has an owner makes no unbound key:
without the approval of what runs there is none at all.
"""

from dataclasses import dataclass
from pathlib import Path

from umec_attest.agent.errors import TpmRefused
from umec_attest.agent.image_owner import ImageOwner, check_state, read_approval, read_owner_key
from umec_attest.agent.tpm import Tpm, WrappedKey
from umec_attest.agent.tpm.approved import sign_approved
from umec_attest.errors import ApprovalInvalid, ApprovalMissing, ApprovalSignature
from umec_attest.sealed import Approval, OwnerKey, owner_public, verify_approval
from umec_core.errors import UmecError

__all__ = ["Binding", "binding_due", "load_binding", "new_node_key", "sign_by"]


@dataclass(frozen=True, slots=True)
class Binding:
    """Who approves states of the image that runs, and where the approval of it lies."""

    owner: OwnerKey
    approval: Path

    def approved(self) -> Approval:
        """Read what this owner approved. Raises ApprovalMissing, ApprovalInvalid, ApprovalSignature."""
        return verify_approval(read_approval(self.approval), self.owner)

    def policy(self, approval: Approval) -> bytes:
        """Return the policy of keys that are bound to this owner and the image of an approval."""
        return ImageOwner(self.owner, approval.image).policy


def load_binding(owner: Path | None, approval: Path | None) -> Binding | None:
    """Return what node keys are bound to; None where there is no owner. Raises ApprovalInvalid, KeyWeak."""
    if owner is None and approval is None:
        return None
    if owner is None or approval is None:
        raise ApprovalInvalid("--owner and --approval go together: who approves, and what was approved")
    try:
        return Binding(read_owner_key(owner), approval)
    except OSError as error:
        raise ApprovalInvalid(f"there is no key of an owner at {owner}: {error.strerror}") from error


def new_node_key(tpm: Tpm, binding: Binding | None) -> WrappedKey:
    """Make a node key, bound where there is an owner: then only in a state that can use it.

    Raises ApprovalMissing, ApprovalInvalid, ApprovalSignature, ApprovalOutdated, ApprovalPcrs, TpmUnavailable,
    TpmRefused.
    """
    if binding is None:
        return tpm.create_node_key()
    approval = binding.approved()
    check_state(tpm, approval)
    return tpm.create_node_key(binding.policy(approval))


def binding_due(key: WrappedKey, binding: Binding | None) -> bool:
    """Tell whether a node key has to give way to one that is bound as this image wants it, and can."""
    if binding is None:
        return False
    try:
        return key.policy != binding.policy(binding.approved())
    except UmecError:  # who wants to sign hears why
        return False


def sign_by(tpm: Tpm, key: WrappedKey, digest: bytes, binding: Binding | None) -> bytes:
    """Sign a SHA-256 digest with the node key: r||s. A bound one needs the approval of what this TPM has measured.

    Raises as `new_node_key`.
    """
    if not key.policy:
        return tpm.sign(key, digest)
    if binding is None:
        raise ApprovalMissing("the node key signs by an owner's approval only", advice="give --owner and --approval")
    approval = binding.approved()
    if key.policy != binding.policy(approval):
        raise ApprovalSignature("the node key is bound to another owner or image than the approval is of")
    try:
        return sign_approved(tpm, key, digest, approval, owner_public(binding.owner).to_bytes())
    except TpmRefused:
        check_state(tpm, approval)  # to say why
        raise
