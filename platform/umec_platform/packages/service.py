"""Packages: onboarded once, then fixed. A descriptor that could never take effect is refused when it comes."""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_platform.effects import Ledger
from umec_platform.errors import AlreadyThere, NoPackage, PackageState, PermissionUnknown, TenantForeign
from umec_platform.packages.appd import GRANTABLE, AppD, appd_sha256
from umec_platform.rules.confine import confines_before_start
from umec_platform.rules.translate import to_netd_dns, to_netd_traffic
from umec_platform.tables.instances import InstanceRow
from umec_platform.tables.packages import PackageRow
from umec_platform.tables.tenants import TenantRow
from umec_platform.tenants.service import find_tenant

__all__ = ["CREATED", "ONBOARDED", "Packages", "check_appd", "find_package"]

CREATED = "CREATED"
ONBOARDED = "ONBOARDED"


async def find_package(session: AsyncSession, package: str, tenant: str | None) -> PackageRow:
    """Return a package that the caller may see (`tenant` None is an operator); raises `NoPackage`."""
    row = await session.get(PackageRow, package)
    if row is None or tenant not in {None, row.tenant}:
        raise NoPackage("there is no such package")
    return row


def check_appd(appd: AppD, tenant: TenantRow) -> None:
    """Raise unless a descriptor stays within its tenant and within what this platform can do.

    1. The image is in the tenant's repositories: `TenantForeign`. 2. Permissions are ones that applications can have:
    `PermissionUnknown`. 3. Rules can be enforced, and touch the tenant's addresses and names only: `RuleInvalid`,
    `RuleUnsupported`, `AddressForeign`, `NameForeign`.
    """
    if appd.image.tenant != tenant.id:  # 1
        raise TenantForeign(f"the image is in the repositories of {appd.image.tenant}, not of {tenant.id}")
    unknown = sorted(set(appd.requested_permissions) - GRANTABLE)  # 2
    if unknown:
        raise PermissionUnknown(
            f"the descriptor asks for {len(unknown)} permissions that no application can have",
            advice=f"Applications can have: {', '.join(sorted(GRANTABLE))}.",
        )
    confines = confines_before_start(  # 3
        tenant=tenant.id, networks=[ip_network(text) for text in tenant.addresses], domains=tenant.domains
    )
    for traffic in appd.app_traffic_rule:
        to_netd_traffic(traffic, confines)
    for name in appd.app_dns_rule:
        to_netd_dns(name, confines)


class Packages:
    """Onboards, lists and removes packages."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def create(self, actor: str, tenant: str, user_data: dict[str, Any] | None) -> PackageRow:
        """Make an empty package; raises `NoTenant`."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> PackageRow:
            await find_tenant(session, tenant)
            row = PackageRow(
                id=str(uuid4()),
                tenant=tenant,
                state=CREATED,
                enabled=False,
                user_data=user_data,
                version=1,
                created_at=now,
            )
            session.add(row)
            await self._record(session, actor, "package.create", row, now)
            return row

        return await self._ledger.write(work)

    async def onboard(self, actor: str, package: str, tenant: str | None, appd: AppD) -> PackageRow:
        """Give a package its content; raises `NoPackage`, `PackageState`, `AlreadyThere` or as `check_appd`."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> PackageRow:
            row = await find_package(session, package, tenant)
            if row.state != CREATED:
                raise PackageState("the package has its content already", advice="Make a new package.")
            check_appd(appd, await find_tenant(session, row.tenant))
            same = select(PackageRow.id).where(PackageRow.tenant == row.tenant, PackageRow.app_d_id == appd.app_d_id)
            if await session.scalar(same) is not None:
                raise AlreadyThere(f"appDId {appd.app_d_id} is onboarded already")
            row.app_d_id, row.appd, row.appd_sha256 = appd.app_d_id, appd.wire(), appd_sha256(appd)
            row.state, row.enabled = ONBOARDED, True
            row.version += 1
            await self._record(session, actor, "package.onboard", row, now)
            return row

        return await self._ledger.write(work)

    async def remove(self, actor: str, package: str, tenant: str | None) -> None:
        """Remove a package; raises `NoPackage`, or `PackageState` while instances of it exist."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await find_package(session, package, tenant)
            if await session.scalar(select(func.count()).where(InstanceRow.package == package)):
                raise PackageState("instances of the package exist", advice="Terminate and delete them first.")
            await self._record(session, actor, "package.remove", row, now)
            await session.delete(row)

        await self._ledger.write(work)

    async def get(self, package: str, tenant: str | None) -> tuple[PackageRow, bool]:
        """Return a package, and whether instances of it exist; raises `NoPackage`."""
        async with self._ledger.store.read() as session:
            row = await find_package(session, package, tenant)
            used = await session.scalar(select(func.count()).where(InstanceRow.package == package))
            return row, bool(used)

    async def list(self, tenant: str | None) -> Sequence[tuple[PackageRow, bool]]:
        """Return the packages of a tenant (None: of all), oldest first, and whether instances of each exist."""
        async with self._ledger.store.read() as session:
            query = select(PackageRow).order_by(PackageRow.created_at, PackageRow.id)
            if tenant is not None:
                query = query.where(PackageRow.tenant == tenant)
            used = set(await session.scalars(select(InstanceRow.package).distinct()))
            return [(row, row.id in used) for row in await session.scalars(query)]

    async def _record(self, session: AsyncSession, actor: str, action: str, row: PackageRow, now: datetime) -> None:
        facts = {"tenant": row.tenant, "appDId": row.app_d_id, "appd_sha256": row.appd_sha256}
        await self._ledger.record(session, actor=actor, action=action, subject=row.id, facts=facts, now=now)
