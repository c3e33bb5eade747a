"""Talk to netd from the platform: refusals come back as errors with netd's own code.

NetdOperations     the operations, by whatever carries a line there and its answer back
NetdClient         on the same machine: a unix socket, one connection a call
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from umec_platform.netd.errors import MessageTooLarge, NetdUnreachable, RemoteRefusal
from umec_platform.netd.messages import (
    MAX_LINE,
    DnsDelete,
    DnsPut,
    DnsRule,
    InstanceLog,
    InstanceSpec,
    InstanceStart,
    InstanceStop,
    Reply,
    Standing,
    Status,
    Sync,
    Tenant,
    TenantPut,
    TrafficDelete,
    TrafficPut,
    TrafficRule,
)

__all__ = ["TIMEOUT", "NetdClient", "NetdOperations", "Result", "exchange", "new_id", "result_of"]

TIMEOUT: Final = 60.0
"""Seconds: unpacking a large image on a small node takes a while, everything else milliseconds."""

Result = dict[str, Any]
"""What an operation brings, as `messages` describes it for each."""


class NetdOperations(ABC):
    """The operations of netd, each returning its `result` or raising `RemoteRefusal` / an error of kind UNAVAILABLE."""

    @abstractmethod
    async def carry(self, request: BaseModel, line: bytes) -> Reply:
        """Carry one request, which `line` is, there and return its answer."""

    async def pull(self, repository: str, digest: str) -> Path | None:  # noqa: ARG002 - for a host with a disk of its own
        """Have the host fetch an image; None where it reads the platform's own copy."""
        return None

    async def status(self) -> Result:
        """Return what is in force: standing, lease, tenants, instances, numbers of rules, what the host can do."""
        return await self.call(Status(id=new_id()))

    async def standing(self, statement: str) -> Result:
        """Relay a signed standing statement that is restricted to this netd's node."""
        return await self.call(Standing(id=new_id(), statement=statement))

    async def put_tenant(self, tenant: str, *, subnet: str | None = None) -> Result:
        """Make a tenant's network: `{tenant, subnet, gateway}`."""
        return await self.call(TenantPut(id=new_id(), tenant=tenant, subnet=subnet))

    async def put_traffic(self, rule: TrafficRule) -> Result:
        """Add or replace a traffic rule; it is in the kernel when this returns."""
        return await self.call(TrafficPut(id=new_id(), rule=rule))

    async def delete_traffic(self, tenant: str, rule: str) -> Result:
        """Remove a traffic rule: its live flows end too."""
        return await self.call(TrafficDelete(id=new_id(), tenant=tenant, rule=rule))

    async def put_dns(self, rule: DnsRule) -> Result:
        """Add or replace a name; it is served when this returns."""
        return await self.call(DnsPut(id=new_id(), rule=rule))

    async def delete_dns(self, tenant: str, rule: str) -> Result:
        """Remove a name."""
        return await self.call(DnsDelete(id=new_id(), tenant=tenant, rule=rule))

    async def start_instance(self, spec: InstanceSpec) -> Result:
        """Start an instance: `{instance, address, pid}`."""
        return await self.call(InstanceStart(id=new_id(), spec=spec))

    async def stop_instance(self, instance: str) -> Result:
        """Stop an instance; its rules and names go with it."""
        return await self.call(InstanceStop(id=new_id(), instance=instance))

    async def instance_log(self, instance: str, *, lines: int) -> Result:
        """Return the last lines that an instance wrote: `{instance, text}`."""
        return await self.call(InstanceLog(id=new_id(), instance=instance, lines=lines))

    async def sync(
        self,
        *,
        tenants: Sequence[Tenant],
        traffic: Sequence[TrafficRule],
        dns: Sequence[DnsRule],
        instances: Sequence[str] | None = None,
    ) -> Result:
        """Set the whole desired state; see `messages.Sync` for the result."""
        return await self.call(
            Sync(
                id=new_id(),
                tenants=list(tenants),
                traffic=list(traffic),
                dns=list(dns),
                instances=None if instances is None else list(instances),
            )
        )

    async def call(self, request: BaseModel) -> Result:
        """Send one request and return its result."""
        line = request.model_dump_json().encode() + b"\n"
        if len(line) > MAX_LINE:
            raise MessageTooLarge(f"{len(line)} octets are more than the {MAX_LINE} that netd reads")
        return result_of(await self.carry(request, line))


class NetdClient(NetdOperations):
    """A netd on this machine, at its unix socket; raises `NetdUnreachable` where nobody answers."""

    def __init__(self, path: Path | str, *, timeout: float = TIMEOUT) -> None:
        self._path = str(path)
        self._timeout = timeout

    async def carry(self, request: BaseModel, line: bytes) -> Reply:  # noqa: ARG002 - a connection has one request
        """Send one request over a connection of its own."""
        try:
            async with asyncio.timeout(self._timeout):
                answer = await exchange(self._path, line)
            return Reply.model_validate_json(answer)
        except (OSError, TimeoutError, ValueError) as error:
            if isinstance(error, ValidationError):
                raise NetdUnreachable("the answer of netd is not one that we understand") from error
            raise NetdUnreachable(
                f"netd does not answer at {self._path}: {error}", advice="is `umec netd` running?"
            ) from error


async def exchange(path: str, line: bytes) -> bytes:
    """Send a line to a netd on this machine and return its answer; raises OSError or ValueError."""
    reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
    try:
        writer.write(line)
        await writer.drain()
        answer = await reader.readline()
    finally:
        writer.close()
    if not answer.endswith(b"\n"):
        raise ConnectionResetError("the connection ended before the answer")
    return answer


def result_of(reply: Reply) -> Result:
    """Return what an answer brings; raises `RemoteRefusal`."""
    if reply.ok and reply.result is not None:
        return reply.result
    raise RemoteRefusal(reply.code or NetdUnreachable.code, reply.kind, reply.detail or "no reason given")


def new_id() -> str:
    """Return the name of a request, which its answer has, too."""
    return secrets.token_hex(8)
