"""TPM2_Certify: one key of a TPM says that another one is in the same TPM (TPM 2.0 Part 3, 18.2).

1  the structure is a certification
2  it answers this very enrolment
3  it is by the expected key under its parent
4  it is about the expected key, and, where that is asked, under the expected parent
5  the signature verifies
"""

import hmac

from umec_attest.errors import CertifyNameMismatch, CertifyNonceMismatch, CertifyTypeMismatch
from umec_attest.tpm.attest import Certified, parse_attest
from umec_attest.tpm.names import Hierarchy, signer_name
from umec_attest.tpm.public import Public
from umec_attest.tpm.signature import parse_signature
from umec_attest.tpm.verify import verify_signature

__all__ = ["verify_certification"]


def verify_certification(
    *,
    attest: bytes,
    signature: bytes,
    signer: Public,
    signer_parent: Public | bytes | Hierarchy,
    subject: Public,
    subject_parent: Public | bytes | Hierarchy | None,
    qualifying: bytes,
) -> None:
    """Return if `signer` certified `subject` for this enrolment.

    `attest` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE; `qualifying` is what extraData must be. A parent is a
    primary key of the endorsement hierarchy, another Qualified Name, or the hierarchy of a primary key; without one,
    the subject may be anywhere in the TPM. Errors: `TpmInvalid`, `Certify…`, `SignatureRefused`.
    """
    parsed, parsed_signature = parse_attest(attest), parse_signature(signature)
    if not isinstance(parsed.attested, Certified):  # 1
        raise CertifyTypeMismatch("the TPM signed something else than the certification of a key")
    if not qualifying or not hmac.compare_digest(parsed.extra_data, qualifying):  # 2
        raise CertifyNonceMismatch("the certification answers another enrolment")
    if parsed.qualified_signer != signer_name(signer, signer_parent):  # 3
        raise CertifyNameMismatch("the certification is by another key than the expected one under its parent")
    if not hmac.compare_digest(parsed.attested.name, subject.name()):  # 4
        raise CertifyNameMismatch("the certification is about another key")
    if subject_parent is not None and parsed.attested.qualified_name != signer_name(subject, subject_parent):  # 4
        raise CertifyNameMismatch("the certified key is under another parent")
    verify_signature(signer, parsed_signature, attest)  # 5
