"""Rules of instances: they came with the descriptor, and their application switches them on and off."""

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_platform.effects import Ledger, RuleKey
from umec_platform.errors import EtagDiffers, HostFallen, InstanceState, NoInstance, NoRule, RuleFixed
from umec_platform.rules.ports import Settler
from umec_platform.rules.schemas import DnsRule, RuleState, TrafficRule
from umec_platform.rules.translate import settle_dns_rule, settle_traffic_rule
from umec_platform.standing import consequence
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.instances import InstanceRow
from umec_platform.tables.rules import RuleRow

__all__ = ["DNS", "TRAFFIC", "Rules"]

TRAFFIC: Final = "traffic"
DNS: Final = "dns"


class Rules:
    """Shows and switches rules."""

    def __init__(self, ledger: Ledger, hosts: Settler) -> None:
        self._ledger = ledger
        self._hosts = hosts

    async def list(self, instance: str, kind: str) -> Sequence[RuleRow]:
        """Return the rules of an instance; raises `NoInstance`."""
        async with self._ledger.store.read() as session:
            if await session.get(InstanceRow, instance) is None:
                raise NoInstance("there is no such application instance")
            query = select(RuleRow).where(RuleRow.instance == instance, RuleRow.kind == kind).order_by(RuleRow.rule)
            return list(await session.scalars(query))

    async def all(self, tenant: str | None) -> Sequence[RuleRow]:
        """Return the rules of a tenant (None: of all)."""
        async with self._ledger.store.read() as session:
            query = select(RuleRow).order_by(RuleRow.instance, RuleRow.kind, RuleRow.rule)
            return list(await session.scalars(query if tenant is None else query.where(RuleRow.tenant == tenant)))

    async def get(self, key: RuleKey) -> RuleRow:
        """Return a rule; raises `NoRule`."""
        async with self._ledger.store.read() as session:
            return await _find(session, key)

    async def put(
        self, actor: str, key: RuleKey, wish: TrafficRule | DnsRule, *, expected: str | None = None
    ) -> RuleRow:
        """Switch a rule to the state that the wish names, wait for its host to take it, and return the rule.

        `expected` is an entity tag that the rule must still have. Raises `NoRule`, `EtagDiffers`, `RuleFixed` if
        anything but the state differs, `HostFallen` if a fallen node's rule is to become active, what the host says,
        or `HostSilent` if it does not answer in time. In that case the wish is kept, and takes effect when the host is
        back: to wish the same again changes nothing, and waits for the host once more.
        """
        before = await self.get(key)
        async with self._hosts.settled(before.host, key) as waiter:
            waiter.expect(await self._ledger.write(lambda session: self._switch(session, actor, key, wish, expected)))
        return await self.get(key)

    async def _switch(
        self, session: AsyncSession, actor: str, key: RuleKey, wish: TrafficRule | DnsRule, expected: str | None
    ) -> int:
        """Switch in the caller's transaction; returns the version of the row."""
        now = self._ledger.clock()
        row = await _find(session, key)
        if expected is not None and expected not in {"*", f'"{row.version}"'}:
            raise EtagDiffers("the rule has changed since it was read", advice="Read it again.")
        instance = await session.get_one(InstanceRow, key.instance)
        if instance.address is None:
            raise InstanceState("the instance does not run")
        document = _same_but_state(row, wish, instance)
        active = wish.state is RuleState.ACTIVE
        host = await session.get_one(HostRow, row.host)
        if active and not consequence(host.standing).changes:
            raise HostFallen(f"node {host.node} is {host.standing}: no rule becomes active on it")
        if active != row.active:
            row.active, row.document, row.refusal = active, document, None
            row.version += 1
            subject = f"{key.instance}/{key.kind}/{key.rule}"
            action = "rule.activate" if active else "rule.deactivate"
            await self._ledger.record(session, actor=actor, action=action, subject=subject, now=now)
        await self._ledger.look_at(session, row.host, now, key)
        return row.version


async def _find(session: AsyncSession, key: RuleKey) -> RuleRow:
    row = await session.get(RuleRow, (key.instance, key.kind, key.rule))
    if row is None:
        raise NoRule("the instance has no such rule", advice="Rules come with the descriptor (AppD).")
    return row


def _same_but_state(row: RuleRow, wish: TrafficRule | DnsRule, instance: InstanceRow) -> dict[str, object]:
    """Return the document with the wished state; raises `RuleFixed` if anything else differs."""
    own = IPv4Address(str(instance.address))
    settled = settle_traffic_rule(wish, own) if isinstance(wish, TrafficRule) else settle_dns_rule(wish, own)
    document: dict[str, object] = settled.wire()
    if {**document, "state": None} != {**row.document, "state": None}:
        raise RuleFixed(
            "the rule differs from the one that was admitted with the descriptor",
            advice="Send the rule as it was read, with another state.",
        )
    return document
