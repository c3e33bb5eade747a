"""Application support: an application says that it is ready, or that it has ended."""

from sqlalchemy.ext.asyncio import AsyncSession

from umec_platform.effects import Ledger
from umec_platform.errors import ConfirmationState, NoInstance
from umec_platform.tables.instances import INSTANTIATED, PROCESSING, TERMINATE, InstanceRow, OperationRow
from umec_platform.tables.packages import PackageRow

__all__ = ["Applications"]


class Applications:
    """Takes confirmations and shows applications."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def confirm_ready(self, actor: str, instance: str) -> None:
        """Note that an application is up; raises `NoInstance`, or `ConfirmationState` if it does not run."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await _find(session, instance)
            if row.state != INSTANTIATED:
                raise ConfirmationState("the instance is not instantiated")
            if not row.ready:
                row.ready = True
                row.version += 1
                await self._ledger.record(session, actor=actor, action="application.ready", subject=instance, now=now)

        await self._ledger.write(work)

    async def confirm_termination(self, actor: str, instance: str) -> None:
        """Note that an application has ended; raises `NoInstance`, or `ConfirmationState` if nobody asked it to."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await _find(session, instance)
            order = None if row.busy is None else await session.get(OperationRow, row.busy)
            if order is None or (order.operation, order.state, order.confirmed) != (TERMINATE, PROCESSING, False):
                raise ConfirmationState("the instance is not being terminated")
            order.confirmed = True
            await self._ledger.record(session, actor=actor, action="application.ended", subject=instance, now=now)

        await self._ledger.write(work)

    async def get(self, instance: str) -> tuple[InstanceRow, PackageRow]:
        """Return an application; raises `NoInstance`."""
        async with self._ledger.store.read() as session:
            row = await _find(session, instance)
            return row, await session.get_one(PackageRow, row.package)


async def _find(session: AsyncSession, instance: str) -> InstanceRow:
    row = await session.get(InstanceRow, instance)
    if row is None:
        raise NoInstance("there is no such application instance")
    return row
