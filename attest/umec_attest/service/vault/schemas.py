"""Bodies about secrets; binary is standard base64."""

from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.wire import Blob, Id, WireModel

__all__ = ["ReleaseRequest", "SecretRequest"]


class SecretRequest(WireModel):
    """PUT /attest/v1/nodes/{node}/secrets/{name}; `degraded`: a node that is only degraded gets it, too."""

    secret: Blob
    degraded: bool = False


class ReleaseRequest(WireModel):
    """POST /attest/v1/secrets/release: the evidence of a whole round, and which secret is asked for."""

    name: Id
    evidence: EvidenceRequest
