"""Orders of node images. A node is told the newest order for itself, else the one for all nodes with its image."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.standing import StandingView
from umec_platform.effects import Ledger
from umec_platform.nodeimages.errors import FleetOther, NoImageOrder, ReportTooSoon
from umec_platform.nodeimages.ports import Admits, ImageReader
from umec_platform.nodeimages.schemas import ImageOrder, ImageReport
from umec_platform.tables.nodeimages import NodeImageAttemptRow, NodeImageOrderRow, NodeImageReportRow

__all__ = ["NodeImages"]

PAUSE: Final = timedelta(seconds=5)
"""Between two reports of a node: each that says something new is an entry of the audit log."""


class NodeImages:
    """Takes orders and reports, and answers the nodes."""

    def __init__(self, ledger: Ledger, view: StandingView, admitter: Admits, reader: ImageReader) -> None:
        self._ledger = ledger
        self._view = view
        self._admitter = admitter
        self._reader = reader

    async def order(self, actor: str, wish: ImageOrder, *, dry: bool) -> NodeImageOrderRow:
        """Order an image that the site admits now; the same order once more changes nothing. `dry` writes nothing.

        Where it failed, it is tried again for a higher attempt than the one that failed: `again` gives one that is
        higher than that of any former order of the image, for whomever it was.

        Raises `FleetOther`, and what admission and the registry raise.
        """
        now = self._ledger.clock()
        tenant = wish.repository.partition("/")[0]
        await self._admitter.admit(tenant=tenant, repository=wish.repository, digest=wish.digest, now=now)
        found = await self._reader.read(wish.repository, wish.digest)
        fleet = f"{tenant}/{found.name}"
        if wish.fleet not in {None, fleet}:
            raise FleetOther(f"this image is for nodes of {fleet}, and not of {wish.fleet}")
        known = None if wish.node is None else self._view.entries.get(wish.node)
        if known is not None and not _may_have(known.tenant, wish.repository):
            raise FleetOther(f"this image is for nodes of {tenant}, and node {wish.node} is of {known.tenant}")
        target = f"image/{fleet}" if wish.node is None else f"node/{wish.node}"

        async def work(session: AsyncSession) -> NodeImageOrderRow:
            before = await session.get(NodeImageOrderRow, target)
            if before is not None and before.digest == wish.digest and not wish.again:
                return before
            counted = await session.get(NodeImageAttemptRow, found.manifest)
            last = 0 if counted is None else counted.attempt
            attempt = last + 1 if wish.again else 1
            row = NodeImageOrderRow(
                target=target,
                repository=wish.repository,
                digest=wish.digest,
                image=found.name,
                version=found.version,
                manifest=found.manifest,
                kernel=found.kernel,
                attempt=attempt,
                ordered_by=actor,
                ordered_at=now,
            )
            if dry:
                return row
            facts = {"digest": wish.digest, "version": found.version, "attempt": attempt, "reason": wish.reason}
            await self._ledger.record(
                session, actor=actor, action="node-image.order", subject=target, facts=facts, now=now
            )
            await session.merge(NodeImageAttemptRow(manifest=found.manifest, attempt=max(last, attempt)))
            return await session.merge(row)

        return await self._ledger.write(work)

    async def withdraw(self, actor: str, target: str, tenant: str | None = None) -> None:
        """Take an order back, for a tenant (None: an operator of all) one of its own images. Raises `NoImageOrder`."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await session.get(NodeImageOrderRow, target)
            if row is None or not _may_have(tenant, row.repository):
                raise NoImageOrder(f"nothing is ordered for {target}", advice="`umec node image` shows all orders.")
            facts = {"digest": row.digest, "version": row.version}
            await session.delete(row)
            await self._ledger.record(
                session, actor=actor, action="node-image.withdraw", subject=target, facts=facts, now=now
            )

        await self._ledger.write(work)

    async def shown(
        self, node: str | None = None, tenant: str | None = None
    ) -> tuple[Sequence[NodeImageOrderRow], Sequence[NodeImageReportRow]]:
        """Return all orders and reports of a tenant (None: of all), or what concerns one node.

        That is of the orders for all those for its image.
        """
        async with self._ledger.store.read() as session:
            orders = list(await session.scalars(select(NodeImageOrderRow).order_by(NodeImageOrderRow.target)))
            reports = list(await session.scalars(select(NodeImageReportRow).order_by(NodeImageReportRow.node)))
        orders = [row for row in orders if _may_have(tenant, row.repository)]
        reports = [row for row in reports if tenant in {None, row.tenant}]
        if node is None:
            return orders, reports
        own = [row for row in reports if row.node == node]
        targets = {f"node/{node}", *(f"image/{row.tenant}/{row.image}" for row in own)}
        return [row for row in orders if row.target in targets], own

    async def own(self, node: str, tenant: str | None, image: str | None) -> NodeImageOrderRow | None:
        """Return what a node should have: by its own order, else by that for all of its tenant with its image.

        An image of another tenant is not for it, whatever was ordered before the verifier said whose node it is.
        """
        async with self._ledger.store.read() as session:
            own = await session.get(NodeImageOrderRow, f"node/{node}")
            if own is not None and _may_have(tenant, own.repository):
                return own
            if image is None or tenant is None:
                return None
            return await session.get(NodeImageOrderRow, f"image/{tenant}/{image}")

    async def report(self, node: str, tenant: str | None, said: ImageReport) -> None:
        """Take what a node says of its image; news go into the audit log. Raises `ReportTooSoon`."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await session.get(NodeImageReportRow, node)
            if row is not None and now - row.reported_at < PAUSE:
                wait = (PAUSE - (now - row.reported_at)).total_seconds()
                raise ReportTooSoon("this node has just reported", retry_after=wait)
            before = None if row is None else _news(row)
            if row is None:
                row = NodeImageReportRow(node=node)
                session.add(row)
            for name, value in said.model_dump().items():
                setattr(row, name, value)
            row.tenant, row.reported_at = tenant, now
            if before == _news(row):
                return
            facts = {name: value for name, value in said.model_dump(exclude={"code"}).items() if value is not None}
            await self._ledger.record(
                session, actor=node, action="node-image.report", subject=node, code=said.code, facts=facts, now=now
            )

        await self._ledger.write(work)


def _news(row: NodeImageReportRow) -> tuple[object, ...]:
    """Return what makes a report worth an entry of the audit log; another image may have the same version."""
    return row.image, row.running, row.confirmed, row.phase, row.version, row.manifest, row.digest, row.code


def _may_have(tenant: str | None, repository: str) -> bool:
    """Say whether an image is for a tenant: those of others are not, and without a tenant there is no such bound."""
    return tenant in {None, repository.partition("/")[0]}
