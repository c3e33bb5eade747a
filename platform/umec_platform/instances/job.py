"""An operation that is being run: what it is about, and what is written down about it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.errors import UmecError
from umec_platform.errors import OperationFailed
from umec_platform.packages.appd import AppD
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.instances import (
    NOT_INSTANTIATED,
    PROCESSING,
    STARTING,
    TERMINATE,
    InstanceRow,
    OperationRow,
)
from umec_platform.tables.packages import PackageRow
from umec_platform.tables.tenants import TenantRow

__all__ = ["Job", "end_job", "free_instance", "load_job"]


@dataclass(frozen=True, slots=True)
class Job:
    """What an operation is about, as it was when it began."""

    operation: str
    kind: str
    began: datetime
    instance: InstanceRow
    package: PackageRow
    host: HostRow
    tenant: TenantRow
    failed: UmecError | None
    """Why it failed, if all that is left is to take back what it made."""

    @property
    def appd(self) -> AppD:
        """The descriptor."""
        return AppD.model_validate(self.package.appd)


async def load_job(session: AsyncSession, operation: str, now: datetime) -> Job | None:
    """Return an operation that has not ended, and note that it is being run; None for one that has."""
    order = await session.get(OperationRow, operation)
    if order is None or order.state not in {STARTING, PROCESSING}:
        return None
    if order.state == STARTING:
        order.state, order.entered_at = PROCESSING, now
    failed = None
    if order.code is not None and order.operation != TERMINATE:
        failed = OperationFailed(order.code, order.detail or "")
    instance = await session.get_one(InstanceRow, order.instance)
    return Job(
        operation=order.id,
        kind=order.operation,
        began=order.entered_at,
        instance=instance,
        package=await session.get_one(PackageRow, instance.package),
        host=await session.get_one(HostRow, instance.host),
        tenant=await session.get_one(TenantRow, instance.tenant),
        failed=failed,
    )


async def end_job(session: AsyncSession, job: Job, state: str, now: datetime, error: UmecError | None = None) -> None:
    """Write down what an operation came to."""
    order = await session.get_one(OperationRow, job.operation)
    order.state, order.entered_at = state, now
    order.code = None if error is None else error.code
    order.detail = None if error is None else error.detail


async def free_instance(session: AsyncSession, job: Job) -> None:
    """Take the instance of an operation from its host."""
    row = await session.get_one(InstanceRow, job.instance.id)
    row.state, row.host, row.address, row.ready, row.busy = NOT_INSTANTIATED, None, None, False, None
    row.version += 1
