"""Secrets that only one TPM opens, and only in a state that was agreed on. Pure.

    policies    the digests of TPM policies, computed as a TPM does
    release     a secret for one TPM, one boot and one minute: what the verifier answers to a node in good standing
    counter     the NV counter that keeps older images out
    owners      the key of an image's owner
    approvals   which state of an image may open what was sealed for it, signed by the owner

Of a node that reaches the verifier, its standing decides (`release`). Of one that cannot, the owner's signature over
PCR values and a version does (`approvals`): the TPM itself checks it, so an image is updated without sealing anew.
"""

from umec_attest.sealed.approvals import MAX_APPROVAL, Approval, approval_reference, sign_approval, verify_approval
from umec_attest.sealed.counter import COUNTER_HANDLE, COUNTER_SIZE, counter_name, counter_public
from umec_attest.sealed.owners import MAX_OWNER, OwnerKey, OwnerPrivateKey, load_owner, owner_public
from umec_attest.sealed.policies import policy_authorize, policy_counter_timer, policy_nv, policy_pcr
from umec_attest.sealed.release import MAX_SECRET, MIN_SECRET, SealedSecret, check_secret, seal_for_boot

__all__ = [
    "COUNTER_HANDLE",
    "COUNTER_SIZE",
    "MAX_APPROVAL",
    "MAX_OWNER",
    "MAX_SECRET",
    "MIN_SECRET",
    "Approval",
    "OwnerKey",
    "OwnerPrivateKey",
    "SealedSecret",
    "approval_reference",
    "check_secret",
    "counter_name",
    "counter_public",
    "load_owner",
    "owner_public",
    "policy_authorize",
    "policy_counter_timer",
    "policy_nv",
    "policy_pcr",
    "seal_for_boot",
    "sign_approval",
    "verify_approval",
]
