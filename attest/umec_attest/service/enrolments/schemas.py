"""Bodies about enrolments; binary is standard base64."""

from typing import Self

from pydantic import Field, model_validator

from umec_attest.service.wire import Blob, Certificate, Id, WireModel

__all__ = ["ActivationRequest", "Certification", "DeviceKey", "EnrolmentRequest"]


class DeviceKey(WireModel):
    """An IAK or IDevID: a TPMT_PUBLIC, its certificate and those above it (DER)."""

    public: Blob
    certificate: Certificate
    chain: tuple[Certificate, ...] = Field(default=(), max_length=8)


class EnrolmentRequest(WireModel):
    """POST /attest/v1/enrolments: keys are TPMT_PUBLIC, certificates DER."""

    node: Id | None = None
    """None: the site names it, by the ticket or by its TPM."""
    ticket: str | None = Field(default=None, min_length=1, max_length=2048)
    ek_public: Blob
    ek_certificate: Certificate | None = None
    ek_chain: tuple[Certificate, ...] = Field(default=(), max_length=8)
    ak_public: Blob
    node_key_public: Blob
    iak: DeviceKey | None = None
    idevid: DeviceKey | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.idevid is not None and self.iak is None:
            raise ValueError("an IDevID comes with the IAK that certifies it")
        return self


class Certification(WireModel):
    """A TPMS_ATTEST of type CERTIFY and its TPMT_SIGNATURE."""

    attest: Blob
    signature: Blob


class ActivationRequest(WireModel):
    """POST /attest/v1/enrolments/{id}/activation: the AK certifies the node key.

    Where the enrolment showed an IAK, that certifies the AK; where it showed an IDevID, the IAK certifies that, too.
    """

    secret: Blob
    certify_attest: Blob
    certify_signature: Blob
    iak_certifies_ak: Certification | None = None
    iak_certifies_idevid: Certification | None = None
