"""`/app_pkgm/v1/app_packages` on the management listener (MEC 010-2): onboarding."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_platform.api import acting_tenant, entity
from umec_platform.errors import PackageInvalid, PackageState, TenantForeign
from umec_platform.mec import Text
from umec_platform.packages.appd import AppD, parse_appd
from umec_platform.packages.archive import read_package
from umec_platform.packages.service import ONBOARDED, Packages
from umec_platform.tables.packages import PackageRow

__all__ = ["package_router"]


class CreateAppPkg(BaseModel):
    """What a package is made with. The content comes by PUT; the rest of the standard's members describe it there."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    app_pkg_name: Text | None = Field(default=None, alias="appPkgName")
    user_defined_data: dict[str, Any] | None = Field(default=None, alias="userDefinedData")


def package_router(verifier: TokenVerifier, packages: Packages, *, base: str) -> APIRouter:
    """Return the endpoints; `base` is the URL of the management listener."""
    router = APIRouter(prefix="/app_pkgm/v1/app_packages")
    caller = Annotated[Principal, Depends(require(verifier))]
    url = f"{base}/app_pkgm/v1/app_packages"

    @router.post("")
    async def create(wish: CreateAppPkg, who: caller, tenant: str | None = None) -> Response:
        acting = acting_tenant(who, tenant)
        if acting is None:
            raise TenantForeign("an operator names the tenant that the package is for", advice="?tenant=ID")
        row = await packages.create(who.subject, acting, wish.user_defined_data)
        shown = _shown(row, url, used=False)
        return entity(shown, version=row.version, status=201, location=shown["_links"]["self"]["href"])

    @router.get("")
    async def every(who: caller, tenant: str | None = None) -> Response:
        rows = await packages.list(acting_tenant(who, tenant))
        return entity([_shown(row, url, used=used) for row, used in rows])

    @router.get("/{package}")
    async def read(package: str, who: caller) -> Response:
        row, used = await packages.get(package, acting_tenant(who, None))
        return entity(_shown(row, url, used=used), version=row.version)

    @router.get("/{package}/appd")
    async def descriptor(package: str, who: caller) -> Response:
        row, _ = await packages.get(package, acting_tenant(who, None))
        if row.appd is None:
            raise PackageState("the package has no content yet")
        return entity(row.appd, version=row.version)

    @router.put("/{package}/package_content")
    async def onboard(request: Request, package: str, who: caller) -> Response:
        acting = acting_tenant(who, None)
        row = await packages.onboard(who.subject, package, acting, _appd(request, await request.body()))
        return entity(_shown(row, url, used=False), version=row.version)

    @router.delete("/{package}")
    async def remove(package: str, who: caller) -> Response:
        await packages.remove(who.subject, package, acting_tenant(who, None))
        return Response(status_code=204)

    return router


def _appd(request: Request, content: bytes) -> AppD:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return parse_appd(content)
    if media_type == "application/zip":
        return read_package(content)
    raise PackageInvalid("a package is application/zip, or a descriptor application/json")


def _shown(row: PackageRow, url: str, *, used: bool) -> dict[str, Any]:
    here = f"{url}/{row.id}"
    document: dict[str, Any] = {
        "id": row.id,
        "tenant": row.tenant,
        "onboardingState": row.state,
        "operationalState": "ENABLED" if row.enabled else "DISABLED",
        "usageState": "IN_USE" if used else "NOT_IN_USE",
        "_links": {
            "self": {"href": here},
            "appD": {"href": f"{here}/appd"},
            "appPkgContent": {"href": f"{here}/package_content"},
        },
    }
    if row.user_data is not None:
        document["userDefinedData"] = row.user_data
    if row.state == ONBOARDED and row.appd is not None:
        appd = AppD.model_validate(row.appd)
        document |= {
            "appDId": appd.app_d_id,
            "appProvider": appd.app_provider,
            "appName": appd.app_name,
            "appSoftwareVersion": appd.app_soft_version,
            "appDVersion": appd.app_d_version,
            "checksum": {"algorithm": "SHA-256", "hash": row.appd_sha256},
            "softwareImages": [{"swImage": f"{appd.image.repository}@{appd.image.digest}"}],
            "mecInfo": appd.mec_version,
        }
    return document
