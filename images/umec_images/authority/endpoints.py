"""HTTP of the signing authority: the APIs of Fulcio v2, Rekor v2 and an RFC 3161 TSA, and the files that describe them.

Clients of Fulcio replace the path of its URL by `/api/v2/…`, so certificates are also issued there.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from umec_core.clock import Clock
from umec_core.http import require_json
from umec_images.authority.certificate import prove_key
from umec_images.authority.entry import parse_entry
from umec_images.authority.errors import CsrInvalid
from umec_images.authority.identity import IdentityVerifier
from umec_images.authority.journal import Journal
from umec_images.authority.log import SigstoreLog
from umec_images.authority.material import AuthorityMaterial
from umec_images.authority.timestamp import parse_request, respond
from umec_images.authority.trust import client_trust_config, trusted_root

__all__ = ["authority_router"]

STATIC_SECONDS: Final = 300
"""How long a client may keep the trust files: they change when keys are rotated."""


class SigningRequest(BaseModel):
    """Body of Fulcio's signingCert; members that we do not use are part of the standard's format."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    csr: str = Field(alias="certificateSigningRequest", min_length=1, max_length=8192)
    """Base64 of PEM."""


def authority_router(
    *,
    material: AuthorityMaterial,
    identities: IdentityVerifier,
    log: SigstoreLog,
    journal: Journal,
    url: str,
    issuer: str,
    clock: Clock,
) -> APIRouter:
    """Return the routes of the authority whose public address is `url` (no trailing slash)."""
    router = APIRouter()
    sign = _signing_certificate(material, identities, journal, clock)
    for path in ("/sigstore/fulcio/api/v2/signingCert", "/api/v2/signingCert"):
        router.add_api_route(path, sign, methods=["POST"], status_code=201)
    bundle = {"chains": [{"certificates": [_pem(material)]}]}
    for path in ("/sigstore/fulcio/api/v2/trustBundle", "/api/v2/trustBundle"):
        router.add_api_route(path, _document(bundle), methods=["GET"])
    router.add_api_route("/sigstore/rekor/api/v2/log/entries", _log_entry(material, log, clock), methods=["POST"])
    router.add_api_route("/sigstore/tsa/api/v1/timestamp", _timestamp(material, clock), methods=["POST"])
    root, config = trusted_root(material, url=url), client_trust_config(material, url=url, issuer=issuer)
    router.add_api_route("/sigstore/trusted_root.json", _document(root), methods=["GET"])
    router.add_api_route("/sigstore/client_trust_config.json", _document(config), methods=["GET"])
    return router


def _signing_certificate(
    material: AuthorityMaterial, identities: IdentityVerifier, journal: Journal, clock: Clock
) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def signing_certificate(
        body: SigningRequest, authorization: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        identity = await identities.verify(authorization)
        try:
            csr = base64.b64decode(body.csr, validate=True)
        except (binascii.Error, ValueError) as error:
            raise CsrInvalid("certificateSigningRequest is not base64") from error
        certificate = material.issuer.issue(prove_key(csr), identity, now=clock())
        facts = {"sha256": certificate.fingerprint(hashes.SHA256()).hex()}
        await journal.done(identity.subject, "certificate-issued", f"{certificate.serial_number:x}", facts)
        chain = [certificate.public_bytes(Encoding.PEM).decode(), _pem(material)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    return signing_certificate


def _log_entry(material: AuthorityMaterial, log: SigstoreLog, clock: Clock) -> Callable[..., Awaitable[Response]]:
    async def log_entry(request: Request) -> Response:
        require_json(request)
        body, now = await request.body(), clock()
        entry = await asyncio.to_thread(parse_entry, body, issuer=material.issuer, now=now)
        return JSONResponse(await log.append(entry, now=now), status_code=201)

    return log_entry


def _timestamp(material: AuthorityMaterial, clock: Clock) -> Callable[..., Awaitable[Response]]:
    async def timestamp(request: Request) -> Response:
        wanted = parse_request(await request.body())
        answer = respond(wanted, key=material.tsa_key, certificate=material.tsa_certificate, now=clock())
        return Response(answer, status_code=201, media_type="application/timestamp-reply")

    return timestamp


def _document(content: dict[str, Any]) -> Callable[[], Awaitable[Response]]:
    async def document() -> Response:
        return JSONResponse(content, headers={"Cache-Control": f"max-age={STATIC_SECONDS}"})

    return document


def _pem(material: AuthorityMaterial) -> str:
    return material.issuer.certificate.public_bytes(Encoding.PEM).decode()
