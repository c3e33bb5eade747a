"""What the IAK of an enrolment has to certify, and whether it did."""

from umec_attest.device_identity import verify_ak_by_iak, verify_idevid_by_iak
from umec_attest.service.enrolments.schemas import ActivationRequest
from umec_attest.service.errors import DeviceProofMismatch
from umec_attest.service.tables import EnrolmentRow
from umec_attest.tpm.public import parse_public

__all__ = ["verify_device_proofs"]


def verify_device_proofs(row: EnrolmentRow, request: ActivationRequest) -> None:
    """Verify that the IAK, where one was shown, certified AK and IDevID for this enrolment.

    Errors: `DeviceProofMismatch`, `TpmInvalid`, `Certify…`, `SignatureRefused`.
    """
    of_ak, of_idevid = request.iak_certifies_ak, request.iak_certifies_idevid
    asked = (row.iak_public is not None, row.idevid_public is not None)
    if (of_ak is not None, of_idevid is not None) != asked:
        raise DeviceProofMismatch("the IAK certifies exactly what the enrolment has shown: the AK, and an IDevID")
    if row.iak_public is not None and of_ak is not None:
        verify_ak_by_iak(
            attest=of_ak.attest,
            signature=of_ak.signature,
            iak=parse_public(row.iak_public),
            ak=parse_public(row.ak_public),
            ek=parse_public(row.ek_public),
            qualifying=row.secret_sha256,
        )
    if row.iak_public is not None and row.idevid_public is not None and of_idevid is not None:
        verify_idevid_by_iak(
            attest=of_idevid.attest,
            signature=of_idevid.signature,
            iak=parse_public(row.iak_public),
            idevid=parse_public(row.idevid_public),
            qualifying=row.secret_sha256,
        )
