"""Who may do what at the registry: our access tokens, two scopes, and the tenant in the repository's name."""

from datetime import timedelta
from typing import Final, Protocol

from starlette.requests import Request

from umec_core.clock import Clock
from umec_core.http import presented
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_images.gateway.errors import ScopeMissing, TenantForeign
from umec_images.oci.reference import check_repository, tenant_of

__all__ = ["PULL", "PUSH", "Door", "Gatekeeper", "Insider", "allow"]

PULL: Final = "images:pull"
PUSH: Final = "images:push"


class Door(Protocol):
    """Says who asks."""

    async def enter(self, request: Request, /) -> Principal:
        """Return who asks, or raise."""
        ...

    def challenge(self) -> str:
        """Return WWW-Authenticate for those who are not let in."""
        ...


class Gatekeeper:
    """Lets in who shows a good token for this registry."""

    def __init__(self, verifier: TokenVerifier, *, url: str) -> None:
        self._verifier = verifier
        self._url = url

    async def enter(self, request: Request) -> Principal:
        """Return who asks; raises the errors of TokenVerifier."""
        return await self._verifier.verify(presented(request, self._url))

    def challenge(self) -> str:
        """Return WWW-Authenticate for those who are not let in (RFC 9449 §7.1, RFC 9728)."""
        metadata = self._verifier.resource_metadata
        where = "" if metadata is None else f', resource_metadata="{metadata}"'
        return f'DPoP algs="ES256", scope="{PULL} {PUSH}"{where}'


def allow(principal: Principal, repository: str, scope: str) -> str:
    """Return the checked repository if `principal` may use it so; raises ScopeMissing or TenantForeign.

    A token without tenant belongs to a service or an operator: its scopes reach every tenant.
    """
    name = check_repository(repository)
    if scope not in principal.scopes:
        raise ScopeMissing(f"the token lacks the scope {scope}")
    if principal.tenant is not None and principal.tenant != tenant_of(name):
        raise TenantForeign(f"{name} is not a repository of the tenant {principal.tenant}")
    return name


class Insider:
    """Lets in this very process: for what the images service itself reads and attaches, under the same checks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def enter(self, _request: Request) -> Principal:
        """Return the images service itself."""
        return Principal(
            subject="umec-images",
            client_id="umec-images",
            scopes=frozenset({PULL, PUSH}),
            audience="",
            tenant=None,
            node=None,
            generation=None,
            instance=None,
            expires=self._clock() + timedelta(minutes=1),
            jti="",
            binding="bearer",
        )

    def challenge(self) -> str:
        """Return nothing to do better: insiders are not refused."""
        return ""
