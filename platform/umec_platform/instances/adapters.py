"""The real neighbours of the life cycle: admission of images, and the authorization server."""

from collections.abc import Mapping
from datetime import datetime

from umec_core.client import OAuthClient, RemoteRefused
from umec_core.clock import Clock
from umec_core.dpop import make_proof
from umec_images.admission import Admitter as ImageAdmitter
from umec_images.oci.client import Authorize
from umec_platform.instances.ports import Admitted, NewClient

__all__ = ["Admission", "Registrar", "registry_authorization"]


class Admission:
    """Asks `umec_images` whether an image may run in production."""

    def __init__(self, admitter: ImageAdmitter) -> None:
        self._admitter = admitter

    async def admit(self, *, tenant: str, repository: str, digest: str, now: datetime) -> Admitted:
        """Return the admission of exactly this digest; raises as `umec_images.admission.admit`."""
        found = await self._admitter.admit(tenant=tenant, repository=repository, digest=digest, now=now)
        return Admitted(
            repository=found.repository,
            digest=found.digest,
            policies=found.policies,
            policy_sha256=found.policy_sha256,
        )


class Registrar:
    """Registers application instances at the authorization server."""

    def __init__(self, client: OAuthClient, *, management: str, mp1: str) -> None:
        """`client` may do `identity:instances`; `management` and `mp1` are the listeners' URLs, no slash at the end."""
        self._client = client
        self._resource = f"{management}/identity/v1"
        self._mp1 = f"{mp1}/"

    async def register(self, client: NewClient) -> None:
        """Register a client; one of the same id, left by an attempt that was cut off, is replaced."""
        wanted = {
            "client_id": client.client_id,
            "kind": "application",
            "tenant": client.tenant,
            "node": client.node,
            "instance": client.client_id,
            "jwks": {"keys": [dict(client.jwk)]},
            "scopes": sorted(client.scopes),
            "resources": [self._mp1],
            "binding": "dpop",
        }
        await self.remove(client.client_id)
        await self._ask("POST", f"{self._resource}/clients", json=wanted)

    async def remove(self, client_id: str) -> None:
        """Remove a client; its live tokens end with it. Removing what is not there succeeds."""
        try:
            await self._ask("DELETE", f"{self._resource}/clients/{client_id}")
        except RemoteRefused as error:
            if error.status != 404:
                raise

    async def _ask(self, method: str, url: str, json: object = None) -> None:
        await self._client.request(method, url, resource=self._resource, scopes=["identity:instances"], json=json)


def registry_authorization(client: OAuthClient, registry: str, clock: Clock) -> Authorize:
    """Return what authorises each request to our registry: a DPoP-bound token that may pull."""
    key = client.credential.key()

    async def authorize(method: str, url: str) -> Mapping[str, str]:
        token = await client.token(f"{registry}/", ["images:pull"])
        proof = make_proof(key, method, url, now=clock(), access_token=token.text)
        return {"Authorization": f"DPoP {token.text}", "DPoP": proof}

    return authorize
