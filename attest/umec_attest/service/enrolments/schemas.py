"""Bodies about enrolments; binary is standard base64."""

from pydantic import Field

from umec_attest.service.wire import Blob, Certificate, Id, WireModel

__all__ = ["ActivationRequest", "EnrolmentRequest"]


class EnrolmentRequest(WireModel):
    """POST /attest/v1/enrolments: keys are TPMT_PUBLIC, certificates DER."""

    node: Id
    ticket: str | None = Field(default=None, min_length=1, max_length=2048)
    ek_public: Blob
    ek_certificate: Certificate | None = None
    ek_chain: tuple[Certificate, ...] = Field(default=(), max_length=8)
    ak_public: Blob
    node_key_public: Blob


class ActivationRequest(WireModel):
    """POST /attest/v1/enrolments/{id}/activation: a TPMS_ATTEST of type CERTIFY and its TPMT_SIGNATURE."""

    secret: Blob
    certify_attest: Blob
    certify_signature: Blob
