"""GET /attest/v1/checkpoint: what the audit log has committed to, and that it only grew. Open to all."""

from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import APIRouter, Query

from umec_attest.service.wire import encode
from umec_core.audit import AuditLog
from umec_core.store import Store

__all__ = ["checkpoints_router"]


def checkpoints_router(audit: AuditLog, store: Store, *, origin: str, key: EllipticCurvePublicKey) -> APIRouter:
    """Return the route. `key` signs the checkpoints; whoever has none yet may keep it, by the trust it has in TLS."""
    router = APIRouter(prefix="/attest/v1")
    shown_key = encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @router.get("/checkpoint")
    async def checkpoint(first: Annotated[int, Query(alias="from", ge=0, lt=2**53)] = 0) -> dict[str, Any]:
        """Return a signed checkpoint, with the proof that it begins with the first `from` entries.

        Without a proof there is nothing to prove: from nothing, from the same size, or from more than the log has.
        """
        async with store.read() as session:
            signed, proof = await audit.witness(session, first)
        return {"origin": origin, "key": shown_key, "checkpoint": signed, "proof": [encode(node) for node in proof]}

    return router
