"""What a promoter asks its policies, and how it says their refusal."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

from umec_images.errors import PromotionDenied, PromotionRollback, SelfApproved
from umec_images.oci.reference import tenant_of
from umec_images.oci.version import Version
from umec_images.promotion.denylist import DenyList
from umec_images.promotion.evidence import Attached, Proof
from umec_images.statements import Summary
from umec_images.statements.summary import STAGES
from umec_policies import Entity, Fact, PolicyDenied, Request

__all__ = ["Approver", "Question", "Wish"]

ISSUER: Final = "umec-images"
"""Who establishes the facts of a promotion."""
MINUTE: Final = 60


@dataclass(frozen=True, slots=True)
class Approver:
    """Who approves: `identity` in the form in which builders' identities are written, `tenant` None for an operator."""

    identity: str
    tenant: str | None

    @property
    def client(self) -> str:
        """The id of the client, as audit logs name it."""
        return self.identity.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be promoted, and where to."""

    repository: str
    digest: str
    stage: str
    rollback: str | None = None
    """Why an operator goes back to an earlier version; None for who does not mean to."""
    minimum: bool = False
    """Whether the version becomes the repository's minimum."""


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that the policies are asked about."""

    approver: Approver
    wish: Wish
    attached: Attached
    proof: Proof
    made: list[Summary]
    highest: Version | None
    denied: DenyList
    now: datetime

    @property
    def own(self) -> bool:
        """Whether the repository is the approver's, or the approver is an operator."""
        return self.approver.tenant in (None, tenant_of(self.attached.repository))

    @property
    def self_approved(self) -> bool:
        """Whether the approver is one of the builders."""
        return self.approver.identity in self.proof.builders

    @property
    def rollback(self) -> bool:
        """Whether a later version was promoted to this stage before, or one was and this image states none."""
        version = self.attached.version
        return self.highest is not None and (version is None or version < self.highest)

    @property
    def rollback_accepted(self) -> bool:
        """Whether an operator goes back on purpose."""
        return self.wish.rollback is not None and self.approver.tenant is None

    def request(self) -> Request:
        """Return the question as the policies are asked it."""
        return Request(
            Entity("Approver", self.approver.identity), "promote", Entity("Image", self.attached.digest), self._facts()
        )

    def refuse(self, refused: PolicyDenied) -> NoReturn:
        """Raise the refusal that says most. Who may not promote there at all is not told what is denied or was."""
        if not self.own:
            raise PromotionDenied(refused.detail, policies=refused.policies) from refused
        self.denied.require(self.attached.repository, self.attached.digest, self.attached.version, refused.policies)
        if self.self_approved:
            detail = f"{self.approver.identity} built {self.attached.digest}: {refused.detail}"
            raise SelfApproved(detail, policies=refused.policies, advice="Have somebody else approve it.") from refused
        if self.rollback and not self.rollback_accepted:
            detail = f"{self.highest} was promoted to {self.wish.stage} before: {refused.detail}"
            advice = "An operator goes back on purpose: `umec image promote --rollback WHY`."
            raise PromotionRollback(detail, policies=refused.policies, advice=advice) from refused
        raise PromotionDenied(refused.detail, policies=refused.policies) from refused

    def _facts(self) -> dict[str, Fact]:
        attached, staged = self.attached, [each.verified_at for each in self.made if each.stage == STAGES[0]]
        waited = (self.now - min(staged)).total_seconds() if staged else 0
        return {
            "issuer": ISSUER,
            "subject": attached.digest,
            "repository": attached.repository,
            "tenant_repository": self.own,
            "stage": self.wish.stage,
            "approver_is_builder": self.self_approved,
            "staged": bool(staged),
            "staged_minutes": int(waited) // MINUTE,
            "denied": self.denied.denies(attached.digest),
            "version": "" if attached.version is None else attached.version.text,
            "rollback": self.rollback,
            "rollback_accepted": self.rollback_accepted,
            "below_minimum": self.denied.rolled_back(attached.repository, attached.version),
        }
