"""What the platform needs of a host and of the verifier: `netd.client.NetdOperations` and `OAuthClient` are both."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from umec_platform.netd.messages import DnsRule, InstanceSpec, Tenant, TrafficRule

__all__ = ["Connect", "HostDriver", "Recoverer", "StandingSource"]

Result = dict[str, Any]


class HostDriver(Protocol):
    """The operations of one host's netd; each returns its result or raises with netd's code."""

    async def status(self) -> Result:
        """Return what is there: `{began, instances: [{instance, running}]}` and more."""
        ...

    async def standing(self, statement: str) -> Result:
        """Relay a signed standing statement about the host's node."""
        ...

    async def put_tenant(self, tenant: str, *, subnet: str | None = None) -> Result:
        """Make a tenant's network: `{tenant, subnet, gateway}`."""
        ...

    async def put_traffic(self, rule: TrafficRule) -> Result:
        """Add or replace a traffic rule."""
        ...

    async def delete_traffic(self, tenant: str, rule: str) -> Result:
        """Remove a traffic rule."""
        ...

    async def put_dns(self, rule: DnsRule) -> Result:
        """Add or replace a name."""
        ...

    async def delete_dns(self, tenant: str, rule: str) -> Result:
        """Remove a name."""
        ...

    async def pull(self, repository: str, digest: str) -> Path | None:
        """Have the host fetch an image, and return its folder there; None where it reads the platform's own copy."""
        ...

    async def start_instance(self, spec: InstanceSpec) -> Result:
        """Start an instance: `{instance, address, pid}`."""
        ...

    async def stop_instance(self, instance: str) -> Result:
        """Stop an instance."""
        ...

    async def instance_log(self, instance: str, *, lines: int) -> Result:
        """Return the last lines that an instance wrote: `{instance, text}`."""
        ...

    async def sync(
        self,
        *,
        tenants: Sequence[Tenant],
        traffic: Sequence[TrafficRule],
        dns: Sequence[DnsRule],
        instances: Sequence[str] | None = None,
    ) -> Result:
        """Set the whole desired state; what is refused is listed in the result."""
        ...


Connect = Callable[[str], HostDriver]
"""From the address of a netd to its operations."""


class StandingSource(Protocol):
    """Where signed standing statements come from."""

    async def standings(self, *, after: int, wait: float, node: str | None) -> str:
        """Return the JWS of the verifier's feed."""
        ...


class Recoverer(Protocol):
    """Who brings back what a host should run and does not: `instances.recovery.Recovery` is one."""

    async def expected(self, host: str) -> Mapping[str, int]:
        """Return the instances that a host should run, with the versions of their rows."""
        ...

    async def compare(self, host: str, expected: Mapping[str, int], running: Collection[str]) -> None:
        """Take note of which of the expected instances the host runs."""
        ...
