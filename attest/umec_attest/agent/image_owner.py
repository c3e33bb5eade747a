"""Who owns the image that runs here, and whether its owner approved the state that this TPM has measured.

The owner's key and the image's name are in the root file system, thus measured (`umec nodeimage build --owner`). The
approval lies on the disk beside it: whoever holds that may have written it, and it proves itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.tpm.sealing import counter_value
from umec_attest.errors import ApprovalMissing, ApprovalOutdated, ApprovalPcrs, ApprovalSignature
from umec_attest.sealed import (
    MAX_APPROVAL,
    MAX_OWNER,
    Approval,
    OwnerKey,
    approval_reference,
    load_owner,
    owner_public,
    policy_authorize,
    verify_approval,
)
from umec_attest.sealed.approvals import IMAGE

__all__ = [
    "APPROVAL",
    "OWNER",
    "RELEASE",
    "ImageOwner",
    "approval_for",
    "check_state",
    "read_approval",
    "read_owner",
    "read_owner_key",
]

OWNER: Final = Path("/etc/umec/owner.pem")
RELEASE: Final = Path("/etc/os-release")
APPROVAL: Final = Path("/run/umec/approval")
"""Put there when the node starts (`guest/approval.sh`), of the slot that the root file system came from."""


@dataclass(frozen=True, slots=True)
class ImageOwner:
    """The owner of an image, and the image's name."""

    key: OwnerKey
    image: str

    @property
    def policy(self) -> bytes:
        """What is sealed under this policy opens in states of the image that the owner approved."""
        return policy_authorize(owner_public(self.key).name(), approval_reference(self.image))


def read_owner_key(owner: Path) -> OwnerKey:
    """Return the key in an owner's file (PEM). Raises ApprovalInvalid, KeyWeak, OSError."""
    with owner.open("rb") as file:
        return load_owner(file.read(MAX_OWNER))


def read_owner(owner: Path = OWNER, release: Path = RELEASE) -> ImageOwner:
    """Return the owner of the image that runs. Raises AgentStateInvalid, ApprovalInvalid, KeyWeak."""
    try:
        key, lines = read_owner_key(owner), release.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AgentStateInvalid("the image does not say who owns it") from error
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    image = said.get("IMAGE_ID", "").strip('"')
    if IMAGE.fullmatch(image) is None:
        raise AgentStateInvalid(f"{release} does not say which image this is")
    return ImageOwner(key, image)


def read_approval(path: Path = APPROVAL) -> bytes:
    """Return what came with the image as its approval; it is not verified. Raises ApprovalMissing."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_APPROVAL + 1)
    except OSError as error:
        raise ApprovalMissing(
            "no approval came with this image", advice="umec nodeimage approve, and write the image anew"
        ) from error


def approval_for(owner: ImageOwner, data: bytes) -> Approval:
    """Return an approval that this owner signed for this image. Raises ApprovalInvalid, ApprovalSignature."""
    approval = verify_approval(data, owner.key)
    if approval.image != owner.image:
        raise ApprovalSignature(f"the approval is for {approval.image}, the secret for {owner.image}")
    return approval


def check_state(tpm: Tpm, approval: Approval) -> None:
    """Check that an approval opens now, to say why it does not; the TPM checks it anyway.

    Raises ApprovalOutdated, ApprovalPcrs, TpmUnavailable, TpmRefused.
    """
    counter = tpm.do(counter_value)
    if counter > approval.version:
        raise ApprovalOutdated(
            f"the approval has version {approval.version}, this TPM opens from {counter} on",
            advice="boot the newer image, with its approval",
        )
    measured = tpm.read_pcrs(sorted(approval.pcrs))
    others = [pcr for pcr, value in approval.pcrs.items() if measured[pcr] != value]
    if others:
        named = ", ".join(str(pcr) for pcr in sorted(others))
        raise ApprovalPcrs(f"this TPM has measured something else into PCR {named}")
