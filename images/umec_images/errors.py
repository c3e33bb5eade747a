"""Errors about images, what they prove, and what that is worth.

ImageError
├── TrustedRootInvalid    trusted-root-invalid
├── ImageUnsigned         image-unsigned            nothing attached proves anything about this digest
├── SignatureInvalid      image-signature-invalid   a bundle does not prove its statement
│   └── AuthorityExpired  image-authority-expired   …because an authority of it was trusted at another time only
├── IdentityRefused       image-identity            it does, and somebody else made it
├── StatementInvalid      statement-invalid         what was signed is no statement that we read
├── DigestMismatch        digest-mismatch           bytes or statement are about another digest
├── AttachmentsTooMany    attachments-too-many      more is attached to a digest than is read
├── PromotionMissing      promotion-missing         no summary promotes the digest at all
├── PromotionStage        promotion-stage           it was promoted, to another stage
├── PromotionSignature    promotion-signature       a summary that the promotion key has not signed
├── PromotionExists       promotion-exists
├── PromotionDenied       promotion-denied          names the deciding policies, as the next five do
├── SelfApproved          promotion-self-approved   who approves it built it
├── PromotionRollback     promotion-rollback        a later version was promoted there before
├── AdmissionDenied       admission-denied
├── ImageDenied           image-denied              an operator denied the digest
├── ImageRollback         image-rollback            its version is below the repository's minimum
├── VersionMissing        version-missing           the image states no version that could be a minimum
├── MinimumFalls          minimum-falls             a minimum is lowered explicitly only
├── DenyListUnread        deny-list-unread          it changed and could not be read again yet: nothing is judged
├── DenialExists          denial-exists
└── DenialUnknown         denial-unknown
"""

from umec_core.errors import Conflict, Forbidden, Invalid, NotFound, Refused, UmecError, Unavailable

__all__ = [
    "AdmissionDenied",
    "AttachmentsTooMany",
    "AuthorityExpired",
    "DenialExists",
    "DenialUnknown",
    "DenyListUnread",
    "DigestMismatch",
    "IdentityRefused",
    "ImageDenied",
    "ImageError",
    "ImageRollback",
    "ImageUnsigned",
    "MinimumFalls",
    "PromotionDenied",
    "PromotionExists",
    "PromotionMissing",
    "PromotionRollback",
    "PromotionSignature",
    "PromotionStage",
    "SelfApproved",
    "SignatureInvalid",
    "StatementInvalid",
    "TrustedRootInvalid",
    "VersionMissing",
]


class ImageError(UmecError):
    """Something about an image."""

    code = "image-error"


class TrustedRootInvalid(ImageError, Invalid):
    """The trusted root is malformed or incomplete: nothing is verified with it."""

    code = "trusted-root-invalid"


class ImageUnsigned(ImageError, Refused):
    """Nothing attached to the image proves anything about its digest."""

    code = "image-unsigned"


class SignatureInvalid(ImageError, Refused):
    """A bundle does not prove its statement: signature, certificate, log, time or trust is wrong."""

    code = "image-signature-invalid"


class AuthorityExpired(SignatureInvalid):
    """Everything about a bundle verifies but the time: its authorities were not all trusted when it was signed."""

    code = "image-authority-expired"


class IdentityRefused(ImageError, Refused):
    """The signature is good, and was made by an identity that is not trusted for this."""

    code = "image-identity"


class StatementInvalid(ImageError, Invalid):
    """What was signed is not a statement that we read."""

    code = "statement-invalid"


class DigestMismatch(ImageError, Refused):
    """Bytes, or a statement, are about another digest than the one asked for."""

    code = "digest-mismatch"


class AttachmentsTooMany(ImageError, Refused):
    """More bundles and summaries are attached to a digest, or would be, than are ever read."""

    code = "attachments-too-many"


class PromotionMissing(ImageError, Refused):
    """No summary promotes the digest."""

    code = "promotion-missing"


class PromotionStage(ImageError, Refused):
    """The digest was promoted, to another stage than the one it is wanted for."""

    code = "promotion-stage"


class PromotionSignature(ImageError, Refused):
    """A verification summary is there that no promotion key has signed."""

    code = "promotion-signature"


class PromotionExists(ImageError, Conflict):
    """The digest is at that stage already."""

    code = "promotion-exists"


class _Denied(ImageError, Forbidden):
    """A policy decided: `policies` are the ids of those that did (empty: none permitted it)."""

    def __init__(self, detail: str, *, policies: tuple[str, ...], advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.policies = policies


class PromotionDenied(_Denied):
    """The policies do not allow the promotion."""

    code = "promotion-denied"


class SelfApproved(_Denied):
    """The approver is a builder of the image: nobody approves their own work."""

    code = "promotion-self-approved"


class PromotionRollback(_Denied):
    """A later version was promoted to this stage before, or what is to follow it states no version."""

    code = "promotion-rollback"


class AdmissionDenied(_Denied):
    """The policies do not admit the image."""

    code = "admission-denied"


class ImageDenied(_Denied):
    """The digest is on the operator's deny list; no policy permits it anyway."""

    code = "image-denied"


class ImageRollback(_Denied):
    """The version is below the repository's minimum, or is none; no policy permits it anyway."""

    code = "image-rollback"


class VersionMissing(ImageError, Refused):
    """The image states no semantic version, and one is needed."""

    code = "version-missing"


class MinimumFalls(ImageError, Conflict):
    """A minimum version would fall, and nobody said that it may."""

    code = "minimum-falls"


class DenyListUnread(ImageError, Unavailable):
    """The deny list changed and could not be read since: nobody knows what is denied, so nothing is judged."""

    code = "deny-list-unread"


class DenialExists(ImageError, Conflict):
    """The digest is denied already."""

    code = "denial-exists"


class DenialUnknown(ImageError, NotFound):
    """The digest is not denied."""

    code = "denial-unknown"
