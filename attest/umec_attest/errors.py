"""The error tree of attestation.

    AttestError
    ├── TpmInvalid              tpm-invalid               bytes that are no TPM structure of the kind they claim to be
    ├── QuoteRefused            quote-*, pcr-*            a quote that does not prove what was asked for
    ├── SignatureRefused        signature-*, key-weak     a signature, or a key, that proves nothing
    ├── EnrolmentRefused        ek-*, ak-*, certify-*, device-*, …  a key that is not what enrolment demands
    ├── BootLogRefused          bootlog-*                 a boot log that cannot be believed
    ├── ImaRefused              ima-*                     a list of runtime measurements that cannot be believed
    ├── StartLogRefused         start-log-*               a log of starts of applications that cannot be believed
    ├── ReferenceRefused        reference-*               a reference set that may not be used
    ├── SealingRefused          secret-*, approval-*      a secret that is not sealed, or not opened
    ├── ImageFolderInvalid      image-folder-invalid      a node image whose PCR values cannot be predicted
    └── FirmwareUnknown         firmware-unknown          a firmware of which no PCR value is known

Each class is one reason with one stable code; the classes between are for those who handle a group.
"""

from umec_core.errors import Kind, UmecError

__all__ = [
    "AkAttributes",
    "ApprovalInvalid",
    "ApprovalMissing",
    "ApprovalOutdated",
    "ApprovalPcrs",
    "ApprovalSignature",
    "AttestError",
    "BootLogDataMismatch",
    "BootLogEmpty",
    "BootLogInvalid",
    "BootLogOtherRegisters",
    "BootLogPadded",
    "BootLogRefused",
    "BootLogReplayMismatch",
    "BootLogSha1Only",
    "BootLogTooLarge",
    "BootLogVendorInfoSize",
    "CanonicalLogInvalid",
    "CertifyNameMismatch",
    "CertifyNonceMismatch",
    "CertifyTypeMismatch",
    "DeviceCertificateExpired",
    "DeviceCertificateInvalid",
    "DeviceCertificateMismatch",
    "DeviceCertificatePath",
    "DeviceIdentityMismatch",
    "EkCertificateExpired",
    "EkCertificateInvalid",
    "EkCertificateMalformed",
    "EkCertificateMismatch",
    "EkCertificatePath",
    "EkMakerRefused",
    "EkProfile",
    "EkTrustMissing",
    "EnrolmentRefused",
    "FirmwareUnknown",
    "IakAttributes",
    "IdevidAttributes",
    "ImaAggregateMismatch",
    "ImaCheckpointOutdated",
    "ImaEmpty",
    "ImaInvalid",
    "ImaRefused",
    "ImaReplayMismatch",
    "ImaTemplateUnknown",
    "ImageFolderInvalid",
    "KeyWeak",
    "NodeKeyAttributes",
    "NodeKeyPolicy",
    "NodeKeyUnbound",
    "PcrDigestMismatch",
    "PcrSelectionMismatch",
    "PcrValuesInvalid",
    "QuoteNonceMismatch",
    "QuoteRefused",
    "QuoteSignerMismatch",
    "QuoteTypeMismatch",
    "ReferenceEmpty",
    "ReferenceExpired",
    "ReferenceInvalid",
    "ReferenceNotYetValid",
    "ReferenceRefused",
    "ReferenceRollback",
    "ReferenceSignature",
    "ReferenceTooLarge",
    "SealingRefused",
    "SecretSize",
    "SignatureInvalid",
    "SignatureRefused",
    "SignatureSchemeRefused",
    "StartLogInvalid",
    "StartLogMismatch",
    "StartLogOutdated",
    "StartLogRefused",
    "TpmInvalid",
    "UserspaceLogInvalid",
    "UserspaceLogTooLarge",
]


class AttestError(UmecError):
    """Anything that attestation refuses."""

    code = "attest-error"


class TpmInvalid(AttestError):
    """Bytes that are no TPM structure of the kind they claim to be."""

    code = "tpm-invalid"
    kind = Kind.INVALID


# --- quotes ---------------------------------------------------------------------------------------------------------


class QuoteRefused(AttestError):
    """A quote that does not prove what was asked for."""

    code = "quote-refused"


class QuoteTypeMismatch(QuoteRefused):
    """The TPM signed something, but it is no quote."""

    code = "quote-type-mismatch"


class QuoteSignerMismatch(QuoteRefused):
    """The qualified signer is not the attestation key under its parent."""

    code = "quote-signer-mismatch"


class QuoteNonceMismatch(QuoteRefused):
    """The quote answers another challenge."""

    code = "quote-nonce-mismatch"


class PcrSelectionMismatch(QuoteRefused):
    """The signed PCR selection is not the requested one."""

    code = "pcr-selection-mismatch"


class PcrValuesInvalid(QuoteRefused):
    """The PCR values sent along are not those that the selection names, or of a wrong size."""

    code = "pcr-values-invalid"
    kind = Kind.INVALID


class PcrDigestMismatch(QuoteRefused):
    """The PCR values sent along are not those that the TPM signed."""

    code = "pcr-digest-mismatch"


# --- signatures -----------------------------------------------------------------------------------------------------


class SignatureRefused(AttestError):
    """A signature that proves nothing."""

    code = "signature-refused"


class SignatureSchemeRefused(SignatureRefused):
    """The scheme or its hash does not fit the key, or is not allowed."""

    code = "signature-scheme-refused"


class SignatureInvalid(SignatureRefused):
    """The signature does not verify."""

    code = "signature-invalid"


class KeyWeak(SignatureRefused):
    """A key that is too weak, or of a kind that is not allowed."""

    code = "key-weak"


# --- enrolment ------------------------------------------------------------------------------------------------------


class EnrolmentRefused(AttestError):
    """A key that is not what enrolment demands."""

    code = "enrolment-refused"


class EkProfile(EnrolmentRefused):
    """An endorsement key that does not follow the template of the EK credential profile."""

    code = "ek-profile"


class EkCertificateInvalid(EnrolmentRefused):
    """An EK certificate, or one of its chain, that is malformed or of another kind."""

    code = "ek-certificate-invalid"


class EkCertificateMalformed(EkCertificateInvalid):
    """An EK certificate, or one of its chain, whose bytes are no certificate; some vendors' are not."""

    code = "ek-certificate-malformed"


class EkCertificatePath(EnrolmentRefused):
    """An EK certificate that no configured root vouches for."""

    code = "ek-certificate-path"


class EkCertificateExpired(EnrolmentRefused):
    """A certificate of the path is not valid now."""

    code = "ek-certificate-expired"


class EkCertificateMismatch(EnrolmentRefused):
    """The EK certificate is about another key."""

    code = "ek-certificate-mismatch"


class EkMakerRefused(EnrolmentRefused):
    """An EK certificate of a maker of software TPMs, which are for tests."""

    code = "ek-maker-refused"


class DeviceCertificateInvalid(EnrolmentRefused):
    """A certificate of an IAK or IDevID, or one of its chain, that is malformed or of another kind."""

    code = "device-certificate-invalid"


class DeviceCertificatePath(EnrolmentRefused):
    """A certificate of an IAK or IDevID that no configured root of device makers vouches for."""

    code = "device-certificate-path"


class DeviceCertificateExpired(EnrolmentRefused):
    """A certificate of the path of an IAK or IDevID is not valid now."""

    code = "device-certificate-expired"


class DeviceCertificateMismatch(EnrolmentRefused):
    """The certificate of an IAK or IDevID is about another key."""

    code = "device-certificate-mismatch"


class DeviceIdentityMismatch(EnrolmentRefused):
    """What a node shows of its device's identity is about two devices, or about one with another TPM."""

    code = "device-identity-mismatch"


class IakAttributes(EnrolmentRefused):
    """An initial attestation key that could sign something else than what its TPM says."""

    code = "iak-attributes"


class IdevidAttributes(EnrolmentRefused):
    """An initial device identity key that could leave its TPM."""

    code = "idevid-attributes"


class EkTrustMissing(EnrolmentRefused):
    """Neither a certificate nor an allow-list vouches for the endorsement key."""

    code = "ek-trust-missing"


class AkAttributes(EnrolmentRefused):
    """An attestation key that could sign something else than what its TPM says, or that lives elsewhere."""

    code = "ak-attributes"


class NodeKeyAttributes(EnrolmentRefused):
    """A node key that could leave its TPM, or that cannot do its work."""

    code = "node-key-attributes"


class NodeKeyUnbound(EnrolmentRefused):
    """A node key that signs in any state of its node, of an image whose states somebody has to approve."""

    code = "node-key-unbound"


class NodeKeyPolicy(EnrolmentRefused):
    """A node key that is bound to something else than the approvals of its image's owner."""

    code = "node-key-policy"


class CertifyTypeMismatch(EnrolmentRefused):
    """The TPM signed something, but it certifies no key."""

    code = "certify-type-mismatch"


class CertifyNonceMismatch(EnrolmentRefused):
    """The certification answers another enrolment."""

    code = "certify-nonce-mismatch"


class CertifyNameMismatch(EnrolmentRefused):
    """The certification is about another key, or by another signer."""

    code = "certify-name-mismatch"


# --- boot logs ------------------------------------------------------------------------------------------------------


class BootLogRefused(AttestError):
    """A boot log that cannot be believed."""

    code = "bootlog-refused"


class BootLogInvalid(BootLogRefused):
    """A log that is not well-formed."""

    code = "bootlog-invalid"
    kind = Kind.INVALID


class BootLogTooLarge(BootLogInvalid):
    """A log beyond the limits."""

    code = "bootlog-too-large"
    kind = Kind.TOO_LARGE


class BootLogEmpty(BootLogInvalid):
    """A log without a measurement: it proves nothing, so it is not a good one."""

    code = "bootlog-empty"


class BootLogPadded(BootLogInvalid):
    """A log with nothing but padding behind its last event, where nobody said that there may be some."""

    code = "bootlog-padded"


class BootLogVendorInfoSize(BootLogInvalid):
    """A Spec ID event that ends before its vendorInfo: a quirk of some firmware, to be excused for it or not at all."""

    code = "bootlog-vendor-info-size"


class BootLogSha1Only(BootLogRefused):
    """A log whose only digests are SHA-1: it can be shown, and proves nothing."""

    code = "bootlog-sha1-only"


class BootLogOtherRegisters(BootLogRefused):
    """A log of other registers than the PCRs of a TPM, those of confidential computing."""

    code = "bootlog-other-registers"


class BootLogReplayMismatch(BootLogRefused):
    """A log whose replay does not give the quoted PCR values."""

    code = "bootlog-replay-mismatch"


class BootLogDataMismatch(BootLogRefused):
    """An event whose digest is not of its data, though events of its kind always hash it."""

    code = "bootlog-data-mismatch"


class UserspaceLogInvalid(BootLogInvalid):
    """A log of what userspace measured that is not well-formed."""

    code = "userspace-log-invalid"


class UserspaceLogTooLarge(UserspaceLogInvalid):
    """A log of what userspace measured that is beyond the limits."""

    code = "userspace-log-too-large"
    kind = Kind.TOO_LARGE


class CanonicalLogInvalid(BootLogInvalid):
    """A canonical event log (CEL) that is not well-formed, or beyond the limits."""

    code = "canonical-log-invalid"


# --- runtime measurements -------------------------------------------------------------------------------------------


class ImaRefused(AttestError):
    """A list of runtime measurements that cannot be believed."""

    code = "ima-refused"


class ImaInvalid(ImaRefused):
    """A list that is not well-formed, or has a template that we do not know."""

    code = "ima-invalid"
    kind = Kind.INVALID


class ImaEmpty(ImaInvalid):
    """A list without a measurement: it proves nothing, so it is not a good one."""

    code = "ima-empty"


class ImaTemplateUnknown(ImaInvalid):
    """An entry whose template no kernel that we know writes: nobody can say what it measures."""

    code = "ima-template-unknown"


class ImaCheckpointOutdated(ImaRefused):
    """A checkpoint of another boot, of another runtime policy or of another bank: the list is needed from its start."""

    code = "ima-checkpoint-outdated"


class ImaReplayMismatch(ImaRefused):
    """A list whose replay does not give the quoted PCR 10."""

    code = "ima-replay-mismatch"


class ImaAggregateMismatch(ImaRefused):
    """A list that began on another boot: its boot_aggregate is not that of the quoted PCRs."""

    code = "ima-aggregate-mismatch"


# --- starts of applications -----------------------------------------------------------------------------------------


class StartLogRefused(AttestError):
    """A log of starts of applications that cannot be believed."""

    code = "start-log-refused"


class StartLogInvalid(StartLogRefused):
    """A log of starts that is not well-formed: somebody else extends its PCR."""

    code = "start-log-invalid"
    kind = Kind.INVALID


class StartLogMismatch(StartLogRefused):
    """A log of starts whose replay does not give the quoted PCR 15."""

    code = "start-log-mismatch"


class StartLogOutdated(StartLogRefused):
    """A checkpoint of another boot: the log of starts is needed from its beginning."""

    code = "start-log-outdated"


# --- reference sets -------------------------------------------------------------------------------------------------


class ReferenceRefused(AttestError):
    """A reference set that may not be used."""

    code = "reference-refused"


class ReferenceInvalid(ReferenceRefused):
    """A statement that is no reference set."""

    code = "reference-invalid"
    kind = Kind.INVALID


class ReferenceSignature(ReferenceRefused):
    """A reference set that no pinned signer signed."""

    code = "reference-signature"


class ReferenceEmpty(ReferenceRefused):
    """A reference set that expects nothing."""

    code = "reference-empty"


class ReferenceExpired(ReferenceRefused):
    """A reference set whose time is over."""

    code = "reference-expired"


class ReferenceNotYetValid(ReferenceRefused):
    """A reference set issued in the future."""

    code = "reference-not-yet-valid"


class ReferenceRollback(ReferenceRefused):
    """A reference set older than one that was in use already."""

    code = "reference-rollback"


class ReferenceTooLarge(ReferenceRefused):
    """A reference set that the API does not take."""

    code = "reference-too-large"
    kind = Kind.TOO_LARGE


# --- sealed secrets -------------------------------------------------------------------------------------------------


class SealingRefused(AttestError):
    """A secret that is not sealed, or not opened."""

    code = "sealing-refused"


class SecretSize(SealingRefused):
    """A secret too short to be a key, or too long for a sealed object."""

    code = "secret-size"
    kind = Kind.INVALID


class ApprovalInvalid(SealingRefused):
    """A file that is no approval of a state, or one that approves nothing."""

    code = "approval-invalid"
    kind = Kind.INVALID


class ApprovalMissing(SealingRefused):
    """The image has an owner, and no approval of its state came with it."""

    code = "approval-missing"


class ApprovalSignature(SealingRefused):
    """An approval that the owner has not signed, or not for this image."""

    code = "approval-signature"


class ApprovalOutdated(SealingRefused):
    """An approval of an image that newer ones have shut out."""

    code = "approval-outdated"


class ApprovalPcrs(SealingRefused):
    """The approval is of another state than the one that the TPM has measured."""

    code = "approval-pcrs"


# --- prediction -----------------------------------------------------------------------------------------------------


class ImageFolderInvalid(AttestError):
    """A node image folder from which no PCR value can be predicted."""

    code = "image-folder-invalid"
    kind = Kind.INVALID


class FirmwareUnknown(AttestError):
    """A firmware of which no PCR value is known: nobody measured it yet."""

    code = "firmware-unknown"
    kind = Kind.INVALID
