"""Which clients there are: registered by the platform and by operators, and removed with everything they hold."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.jose import JwkInvalid, KeySet
from umec_core.principal import Binding
from umec_core.store import Store
from umec_identity.clients.instances import check_instance_row
from umec_identity.clients.rows import ClientRow
from umec_identity.clients.schemas import ClientIn
from umec_identity.errors import ClientExists, ClientUnknown, RegistrationInvalid
from umec_identity.revocation.service import Revocation
from umec_identity.settings import SCOPES, Resources

__all__ = ["Client", "Clients"]

MAX_KEYS: Final = 4
"""Keys of a client: the present one, the next one, and room for a second pair."""

REMEMBERED: Final = timedelta(seconds=1)
"""How long a client is known without looking again: a busy one is read once a second, not once a token."""

MAX_REMEMBERED: Final = 4096

SHOWN: Final = 1000
"""Clients in one listing."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client as registered; `keys` are its public keys."""

    client_id: str
    kind: str
    tenant: str | None
    node: str | None
    instance: str | None
    keys: KeySet
    scopes: frozenset[str]
    resources: frozenset[str]
    binding: Binding
    created_at: datetime

    def describe(self) -> dict[str, Any]:
        """Return the client as the API shows it."""
        return {
            "client_id": self.client_id,
            "kind": self.kind,
            "tenant": self.tenant,
            "node": self.node,
            "instance": self.instance,
            "jwks": self.keys.jwks(),
            "scopes": sorted(self.scopes),
            "resources": sorted(self.resources),
            "binding": self.binding,
            "created_at": self.created_at.isoformat().replace("+00:00", "Z"),
        }


class Clients:
    """The register of clients."""

    def __init__(
        self, store: Store, *, audit: AuditLog, revocation: Revocation, resources: Resources, clock: Clock
    ) -> None:
        self._store = store
        self._audit = audit
        self._revocation = revocation
        self._resources = resources
        self._clock = clock
        self._known: dict[str, tuple[Client, datetime]] = {}
        self._reading: dict[str, asyncio.Task[Client | None]] = {}
        self._changes = 0

    async def find(self, client_id: str) -> Client | None:
        """Return a client, or None; what another replica changed is seen within `REMEMBERED`."""
        now = self._clock()
        known = self._known.get(client_id)
        if known is not None and known[1] <= now < known[1] + REMEMBERED:
            return known[0]
        reading = self._reading.get(client_id)
        if reading is None:
            reading = self._reading[client_id] = asyncio.create_task(self._read(client_id, now))
            reading.add_done_callback(lambda done: self._read_ended(client_id, done))
        return await asyncio.shield(reading)

    async def _read(self, client_id: str, now: datetime) -> Client | None:
        changes = self._changes
        async with self._store.read() as session:
            row = await session.get(ClientRow, client_id)
        if row is None:
            return None
        client = _client(row)
        if changes == self._changes:
            self._remember(client, now)
        return client

    def _read_ended(self, client_id: str, reading: "asyncio.Task[Client | None]") -> None:
        if self._reading.get(client_id) is reading:
            del self._reading[client_id]

    def _changed(self, client_id: str) -> None:
        """Forget a client, and let nobody join or remember what is being read of it."""
        self._changes += 1
        self._known.pop(client_id, None)
        self._reading.pop(client_id, None)

    def _remember(self, client: Client, now: datetime) -> None:
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[client.client_id] = (client, now)

    async def get(self, client_id: str) -> Client:
        """Return a client; raises `ClientUnknown`."""
        client = await self.find(client_id)
        if client is None:
            raise ClientUnknown(f"there is no client {client_id}")
        return client

    async def list(self) -> Sequence[Client]:
        """Return the clients in the order of their identifiers."""
        async with self._store.read() as session:
            rows = await session.scalars(select(ClientRow).order_by(ClientRow.client_id).limit(SHOWN))
            return [_client(row) for row in rows]

    async def register(self, wanted: ClientIn, *, actor: str) -> Client:
        """Register a client and return it; raises `RegistrationInvalid`, `JwkInvalid` or `ClientExists`.

        Registering the same client once more is no error: a caller that lost the answer may repeat itself.
        """
        now = self._clock()
        row = self._row(wanted, now)

        async def work(session: AsyncSession) -> Client:
            known = await session.get(ClientRow, wanted.client_id)
            if known is not None:
                if _same(known, row):
                    return _client(known)
                raise ClientExists(f"client {wanted.client_id} is registered already, with other properties")
            row.created_at = await self._revocation.after_denial(session, wanted.client_id, now)
            session.add(row)
            facts = {"kind": row.kind, "scopes": sorted(wanted.scopes), "keys": [*_client(row).keys.thumbprints()]}
            await self._audit.append(
                session,
                actor=actor,
                action="client.register",
                subject=wanted.client_id,
                outcome="done",
                facts=facts,
                now=now,
            )
            return _client(row)

        client = await self._store.write(work)
        self._changed(wanted.client_id)
        return client

    async def remove(self, client_id: str, *, actor: str, instances_only: bool = False) -> None:
        """Remove a client and refuse its live tokens from now on; raises `ClientUnknown`.

        `instances_only` raises `RegistrationDenied` for what is no application instance. Tokens that a replica still
        issues while it remembers the client are refused too: they name this registration.
        """
        now = self._clock()

        async def work(session: AsyncSession) -> None:
            row = await session.get(ClientRow, client_id)
            if row is None:
                raise ClientUnknown(f"there is no client {client_id}")
            if instances_only:
                check_instance_row(row)
            await session.delete(row)
            await self._revocation.deny_client(session, client_id, now=now, registered=row.created_at)
            await self._audit.append(
                session, actor=actor, action="client.remove", subject=client_id, outcome="done", now=now
            )

        await self._store.write(work)
        self._changed(client_id)
        await self._revocation.refresh()

    async def seed(self, wanted: Sequence[ClientIn]) -> None:
        """Register the clients that come with the installation, replacing those whose properties changed."""
        for client in wanted:
            await self._seed(client)

    async def _seed(self, wanted: ClientIn) -> None:
        try:
            await self.register(wanted, actor="installation")
        except ClientExists:
            await self.remove(wanted.client_id, actor="installation")
            await self.register(wanted, actor="installation")

    def _row(self, wanted: ClientIn, now: datetime) -> ClientRow:
        try:
            keys = KeySet.from_jwks(wanted.jwks)
        except JwkInvalid:
            raise
        except UmecError as error:
            raise RegistrationInvalid(error.detail) from error
        if len(keys) > MAX_KEYS:
            raise RegistrationInvalid(f"{len(keys)} keys, at most {MAX_KEYS} are kept for a client")
        self._check(wanted)
        return ClientRow(
            client_id=wanted.client_id,
            kind=wanted.kind,
            tenant=wanted.tenant,
            node=wanted.node,
            instance=wanted.instance,
            jwks=json.dumps(wanted.jwks, sort_keys=True),
            scopes=json.dumps(sorted(set(wanted.scopes))),
            resources=json.dumps(sorted(set(wanted.resources))),
            binding=wanted.binding,
            created_at=now,
        )

    def _check(self, wanted: ClientIn) -> None:
        known = frozenset().union(*SCOPES.values())
        if unknown := set(wanted.scopes) - known:
            raise RegistrationInvalid(f"unknown scopes {sorted(unknown)}")
        if unknown := {uri for uri in wanted.resources if self._resources.api(uri) is None}:
            raise RegistrationInvalid(f"unknown resources {sorted(unknown)}")
        if wanted.kind == "application" and wanted.tenant is None:
            raise RegistrationInvalid("an application belongs to a tenant")
        if wanted.binding == "bearer" and wanted.kind != "application":
            raise RegistrationInvalid("bearer tokens are for unmodified MEC applications only")


def _client(row: ClientRow) -> Client:
    binding: Binding = row.binding  # type: ignore[assignment]  # written from ClientIn only
    return Client(
        client_id=row.client_id,
        kind=row.kind,
        tenant=row.tenant,
        node=row.node,
        instance=row.instance,
        keys=KeySet.from_jwks(json.loads(row.jwks)),
        scopes=frozenset(json.loads(row.scopes)),
        resources=frozenset(json.loads(row.resources)),
        binding=binding,
        created_at=row.created_at,
    )


def _same(known: ClientRow, wanted: ClientRow) -> bool:
    names = ("kind", "tenant", "node", "instance", "jwks", "scopes", "resources", "binding")
    return all(getattr(known, name) == getattr(wanted, name) for name in names)
