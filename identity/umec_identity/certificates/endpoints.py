"""POST /identity/v1/certificates and GET /identity/v1/ca."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError

from umec_core.errors import Invalid, UmecError
from umec_core.http import require_json
from umec_identity.authentication.service import Authenticated, Authentication
from umec_identity.certificates.authority import MAX_CSR, CertificateAuthority, CsrKey, read_csr
from umec_identity.certificates.service import Certificates
from umec_identity.errors import AuthenticationUnsupported
from umec_identity.forms import read_body
from umec_identity.limits import Buckets
from umec_identity.refusals import Refusals
from umec_identity.wire import oauth_request

__all__ = ["router"]


class _CertificateIn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    csr: str


def router(
    certificates: Certificates,
    authority: CertificateAuthority,
    *,
    authentication: Authentication,
    refusals: Refusals,
    addresses: Buckets,
) -> APIRouter:
    """Return the endpoints."""
    api = APIRouter(prefix="/identity/v1")

    @api.get("/ca")
    async def show_ca() -> Response:
        return Response(authority.pem(), media_type="application/pem-certificate-chain")

    @api.post("/certificates", status_code=201)
    async def certify(request: Request) -> dict[str, Any]:
        address = request.client.host if request.client is not None else "unix"
        addresses.take(address)
        require_json(request)
        csr = _read(await read_body(request.stream()))
        who = await authenticated(request, csr, address)
        try:
            issued = await certificates.issue(who, csr)
        except UmecError as error:
            await refusals.authenticated("certificate.issue", who, who.client_id, error)
            raise
        expires = issued.expires.isoformat().replace("+00:00", "Z")
        return {"certificate": issued.certificate, "chain": issued.chain, "expires_at": expires}

    async def authenticated(request: Request, csr: CsrKey, address: str) -> Authenticated:
        try:
            asked = await oauth_request(request, form=False)
            if asked.authorization is not None:
                raise AuthenticationUnsupported("nodes authenticate by attestation, and by nothing besides")
            return await authentication.authenticate(asked, csr_sha256=csr.sha256)
        except UmecError as error:
            await refusals.unauthenticated("certificate.issue", address, error)
            raise

    return api


def _read(body: bytes) -> CsrKey:
    try:
        wanted = _CertificateIn.model_validate_json(body)
    except ValidationError as error:
        raise Invalid(f"the body is not {{csr: PEM of at most {MAX_CSR} characters}}") from error
    return read_csr(wanted.csr)
