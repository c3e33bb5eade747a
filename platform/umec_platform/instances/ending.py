"""Ends what an instance had: when it is terminated, and when its start failed. No end is refused."""

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.errors import UmecError
from umec_platform.effects import Ledger
from umec_platform.hosts.fleet import Fleet
from umec_platform.instances.job import Job, end_job, free_instance
from umec_platform.instances.ports import ClientRegistrar
from umec_platform.instances.service import forget_instance
from umec_platform.tables.instances import COMPLETED, FAILED, INSTANTIATE, InstanceRow, OperationRow

__all__ = ["Ender"]

log = structlog.get_logger("umec.lifecycle")


class Ender:
    """Ends instances and operations, one at a call."""

    def __init__(self, ledger: Ledger, fleet: Fleet, registrar: ClientRegistrar) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._registrar = registrar

    async def terminate(self, job: Job) -> None:
        """Stop the instance of an operation, and whatever it had; raises what has to be tried again."""
        await self._registrar.remove(job.instance.id)  # 2

        async def forget(session: AsyncSession) -> None:
            now = self._ledger.clock()
            await forget_instance(session, job.instance.id)  # 3
            await self._ledger.look_at(session, job.host.id, now)

        await self._ledger.write(forget)
        driver = await self._fleet.driver(job.host.id)
        await driver.stop_instance(job.instance.id)  # 4

        async def work(session: AsyncSession) -> None:
            now = self._ledger.clock()
            await forget_instance(session, job.instance.id)  # what it registered with a request that was under way
            await free_instance(session, job)
            await end_job(session, job, COMPLETED, now)
            await self._ledger.record(
                session, actor="platform", action="instance.stopped", subject=job.instance.id, now=now
            )
            await self._ledger.look_at(session, job.host.id, now)

        await self._ledger.write(work)

    async def wait(self, job: Job, error: Exception) -> None:
        """Write down what an operation waits for; it is run again until it comes to its end."""
        known = _known(error)
        log.warning("an operation is tried again", operation=job.operation, kind=job.kind, code=known.code)

        async def work(session: AsyncSession) -> None:
            order = await session.get_one(OperationRow, job.operation)
            order.code, order.detail = known.code, known.detail

        await self._ledger.write(work)

    async def fail(self, job: Job, error: Exception) -> None:
        """End a start that failed, but not before its client is gone; what its host runs, its worker corrects."""
        known = _known(error)
        try:
            driver = await self._fleet.driver(job.host.id)
            await driver.stop_instance(job.instance.id)
        except UmecError as fault:
            log.warning("a failed start could not be stopped at once", instance=job.instance.id, code=fault.code)
        try:
            await self._registrar.remove(job.instance.id)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the client must not stay
            log.warning("the client of a failed start is still there", instance=job.instance.id, fault=str(fault))
            await self.wait(job, known)
            return

        async def work(session: AsyncSession) -> None:
            now = self._ledger.clock()
            row = await session.get_one(InstanceRow, job.instance.id)
            if row.busy != job.operation:
                pass  # it was overtaken: the instance is the other operation's
            elif job.kind == INSTANTIATE:
                await free_instance(session, job)
            else:
                row.busy = None
                row.version += 1
            await end_job(session, job, FAILED, now, known)
            action = f"instance.{job.kind.lower()}"
            await self._ledger.record(
                session, actor="platform", action=action, subject=row.id, code=known.code, now=now
            )
            await self._ledger.look_at(session, job.host.id, now)

        await self._ledger.write(work)


def _known(error: Exception) -> UmecError:
    if isinstance(error, UmecError):
        return error
    return UmecError(f"an unforeseen {type(error).__name__}; the platform's log has its trace")  # code: internal-error
