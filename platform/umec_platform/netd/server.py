"""The unix socket of netd: who asks is told by the kernel, what is asked by `messages`, and every answer is logged."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import BaseModel, ValidationError

from umec_core.errors import UmecError
from umec_platform.netd import messages
from umec_platform.netd.errors import MessageInvalid, MessageTooLarge, OperationFailed, PeerRefused
from umec_platform.netd.host import look
from umec_platform.netd.messages import MAX_LINE, Reply, parse_request
from umec_platform.netd.service import NetdService

__all__ = ["listen"]

Handler = Callable[[Any], Awaitable[dict[str, Any]]]

_log = structlog.get_logger(__name__)
_CREDENTIALS: Final = struct.Struct("=iII")
_OVERFLOW: Final = Path("/proc/sys/kernel/overflowuid")

DISCARD_TIME: Final = 1.0
"""Seconds that a refused peer has to take its answer."""

_MOST_ERRORS: Final = 3
"""How many faults of a request are told at once."""


def handlers(service: NetdService) -> dict[type[BaseModel], Handler]:
    """Return the one table of operations."""
    return {
        messages.Status: service.status,
        messages.Standing: service.standing,
        messages.TenantPut: service.tenants.put_tenant,
        messages.TrafficPut: service.rules.put_traffic,
        messages.TrafficDelete: service.rules.delete_traffic,
        messages.DnsPut: service.rules.put_dns,
        messages.DnsDelete: service.rules.delete_dns,
        messages.InstanceStart: service.instances.start_instance,
        messages.InstanceStop: service.instances.stop_instance,
        messages.InstanceLog: service.instances.instance_log,
        messages.Sync: service.sync,
    }


class _Endpoint:
    def __init__(self, service: NetdService, allowed: Collection[int]) -> None:
        self._handlers = handlers(service)
        self._allowed = frozenset(allowed)
        self._connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            pid, uid = _peer(writer)
            if uid not in self._allowed:
                _log.warning("peer refused", pid=pid, uid=uid)
                await _send(writer, _refused("", PeerRefused(f"uid {uid} may not speak to netd")))
                await _discard(reader)
                return
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    await _send(writer, _refused("", MessageTooLarge(f"a request has at most {MAX_LINE} octets")))
                    await _discard(reader)
                    return
                if not line.endswith(b"\n"):
                    return
                await _send(writer, await self._answer(line, pid=pid, uid=uid))
        except OSError as error:
            _log.info("connection lost", reason=str(error))
        finally:
            writer.close()

    async def _answer(self, line: bytes, *, pid: int, uid: int) -> Reply:
        try:
            request = parse_request(line)
        except ValidationError as error:
            fault = MessageInvalid(_faults(error))
            _log.warning("netd request", uid=uid, pid=pid, outcome="refused", code=fault.code)
            return _refused("", fault)
        about = _about(request)
        try:
            result = await self._handlers[type(request)](request)
        except UmecError as error:
            _log.warning(
                "netd request", uid=uid, pid=pid, **about, outcome="refused", code=error.code, why=error.detail
            )
            return _refused(request.id, error)
        except Exception:  # noqa: BLE001 - the one place that answers for a fault of our own
            _log.exception("netd request", uid=uid, pid=pid, **about, outcome="failed")
            return _refused(request.id, OperationFailed("an unexpected fault, see the log of netd"))
        told = _log.debug if isinstance(request, messages.Status) else _log.info  # asked for every other second
        told("netd request", uid=uid, pid=pid, **about, outcome="done")
        return Reply(id=request.id, ok=True, result=result)


def _peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Return pid and uid of the other end as the kernel knows them; -1 for a uid that it cannot name here."""
    connection = writer.get_extra_info("socket")
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    # In a user namespace every uid from outside of it looks like this one.
    nobody = look().mapped and uid == int(_OVERFLOW.read_text())
    return pid, -1 if nobody else uid


def _faults(error: ValidationError) -> str:
    """Say where a request is wrong, without repeating it."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_ERRORS]
    return "; ".join(
        f"{'.'.join(str(part)[:64] for part in fault['loc'][:6])}: {fault['msg'][:200]}" for fault in faults
    )


def _about(request: Any) -> dict[str, str]:  # noqa: ANN401 - any request
    """Who and what a request is about: names only, never secrets or tokens."""
    told = {"op": request.op}
    subject = getattr(request, "spec", None) or getattr(request, "rule", None) or request
    for name in ("tenant", "instance", "id"):
        value = getattr(subject, name, None)
        if isinstance(value, str) and not (subject is request and name == "id"):
            told["rule" if name == "id" else name] = value
    if isinstance(subject, str):
        told |= {"tenant": request.tenant, "rule": subject}
    return told


def _refused(identifier: str, error: UmecError) -> Reply:
    return Reply(id=identifier, ok=False, code=error.code, kind=error.kind.value, detail=error.detail)


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read what was sent and is not wanted: closing on unread octets would take the answer away, too."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_TIME):
            while await reader.read(65536):
                pass


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    text = json.dumps(reply.model_dump(exclude_none=True), ensure_ascii=False)
    writer.write(text.encode() + b"\n")
    await writer.drain()


@contextlib.asynccontextmanager
async def listen(service: NetdService, path: Path, *, allowed: Collection[int]) -> AsyncIterator[None]:
    """Answer on a unix socket to the uids that are `allowed`.

    Anybody may connect: the kernel's word about the peer decides, not the mode of a file.
    """
    if not allowed:
        raise PeerRefused("nobody may speak to netd: name the uid of the platform")
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(path.unlink, missing_ok=True)
    endpoint = _Endpoint(service, allowed)
    server = await asyncio.start_unix_server(endpoint.accept, path, limit=MAX_LINE)
    await asyncio.to_thread(path.chmod, 0o666)
    try:
        yield
    finally:
        server.close()
        await endpoint.close()
        await asyncio.to_thread(path.unlink, missing_ok=True)
