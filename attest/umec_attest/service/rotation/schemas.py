"""Bodies about rotations; binary is standard base64."""

from typing import Annotated, Any, Final

from pydantic import Field

from umec_attest.service.wire import Blob, Id, WireModel

__all__ = ["RotationProof", "RotationRequest", "Said"]

MAX_PERMIT: Final = 2048
"""Characters; ours have some 500."""


class RotationRequest(WireModel):
    """POST /attest/v1/rotations: the keys that the node wants to have, as TPMT_PUBLIC."""

    node: Id
    ak_public: Blob
    node_key_public: Blob


class Said(WireModel):
    """A TPMS_ATTEST and its TPMT_SIGNATURE."""

    attest: Blob
    signature: Blob


class RotationProof(RotationRequest):
    """POST /attest/v1/rotations/proof: the opened secret, and what the AKs say; `pcrs` as in evidence."""

    permit: Annotated[str, Field(max_length=MAX_PERMIT)]
    secret: Blob
    ak_certified: Said
    node_key_certified: Said
    quoted: Said
    pcrs: dict[str, Any]
