"""To what a node key is bound: to nothing, or to the states of its image that an owner approved. Pure.

The policy of a bound key is that of `umec_attest.sealed.approvals`: TPM2_PolicyAuthorize by the owner of the image. Its
TPM lets it sign in no other way, so a foreign system on the same board cannot, nor an image that was shut out. Which
owner an image has is said by whoever signs its reference set. There:

1  an unbound key is refused
2  a key with any other policy is refused; where nobody named an owner, a key with any policy at all
3  a policy that can be gone around by a password, which is empty, is none
"""

from umec_attest.errors import NodeKeyPolicy, NodeKeyUnbound
from umec_attest.sealed.approvals import approval_reference
from umec_attest.sealed.owners import OwnerKey, owner_public
from umec_attest.sealed.policies import policy_authorize
from umec_attest.tpm.public import Attributes, Public

__all__ = ["check_binding", "is_bound", "owner_policy"]


def owner_policy(owner: OwnerKey, image: str) -> bytes:
    """Return the policy (32 bytes) of what opens in the states of an image that its owner approved."""
    return policy_authorize(owner_public(owner).name(), approval_reference(image))


def is_bound(node_key: Public) -> bool:
    """Tell whether a key signs by a policy only."""
    return bool(node_key.auth_policy) and Attributes.USER_WITH_AUTH not in node_key.attributes


def check_binding(node_key: Public, policy: bytes | None) -> None:
    """Check that a node key is bound as its image asks for; `policy` None: nobody named an owner.

    Errors: `NodeKeyUnbound`, `NodeKeyPolicy`.
    """
    if not node_key.auth_policy:
        if policy is not None:  # 1
            raise NodeKeyUnbound(
                "the node key is bound to no state of the node, and this image has an owner who approves states",
                advice="start the agent with --owner and --approval, or boot the image's newest version",
            )
        return
    if node_key.auth_policy != policy:  # 2
        raise NodeKeyPolicy(
            "the node key is bound to another owner or image than the reference set names",
            advice="sign the reference set with --owner, and approvals with the name of that set's image",
        )
    if not is_bound(node_key):  # 3
        raise NodeKeyPolicy("the node key has the owner's policy, and signs without it, too")
