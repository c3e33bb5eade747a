"""`/app_lcm/v1` on the management listener (MEC 010-2): instances and the operations on them; and what they write."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_platform.api import acting_tenant, entity, rfc3339, seconds
from umec_platform.effects import Ledger
from umec_platform.errors import TerminationUnsupported
from umec_platform.hosts.fleet import Fleet
from umec_platform.instances.recovery import Down, reasons
from umec_platform.instances.service import Instances
from umec_platform.mec import Identifier, MecModel, Text
from umec_platform.netd.messages import MAX_LOG_LINES
from umec_platform.tables.instances import INSTANTIATED, InstanceRow, OperationRow
from umec_platform.tables.packages import PackageRow

__all__ = ["instance_router", "log_router"]


class CreateAppInstanceRequest(MecModel):
    """An instance to be made."""

    app_d_id: Identifier
    app_instance_name: Text | None = None
    app_instance_description: Text | None = None


class MecHostInformation(MecModel):
    """A host, by its id. MEC 010-2 also allows key-value pairs, which this platform does not name hosts by."""

    host_id: Identifier


class InstantiateAppRequest(MecModel):
    """Where an instance is to be started; without a host, on the first whose node is trusted."""

    mec_host_information: list[MecHostInformation] | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        validation_alias=AliasChoices("mecHostInformation", "selectedMECHostInfo"),
    )


class TerminateAppRequest(BaseModel):
    """How an instance is to be stopped."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    termination_type: str = Field(default="FORCEFUL", alias="terminationType", pattern="^(FORCEFUL|GRACEFUL)$")
    timeout: int | None = Field(default=None, alias="gracefulTerminationTimeout", ge=0, le=3600)


def instance_router(verifier: TokenVerifier, instances: Instances, ledger: Ledger, *, base: str) -> APIRouter:
    """Return the endpoints; `base` is the URL of the management listener."""
    router = APIRouter(prefix="/app_lcm/v1")
    caller = Annotated[Principal, Depends(require(verifier))]
    url = f"{base}/app_lcm/v1"

    @router.post("/app_instances")
    async def create(wish: CreateAppInstanceRequest, who: caller, tenant: str | None = None) -> Response:
        row = await instances.create(
            who.subject,
            tenant=acting_tenant(who, tenant),
            app_d_id=wish.app_d_id,
            name=wish.app_instance_name,
            description=wish.app_instance_description,
        )
        row, package = await instances.get(row.id, row.tenant)
        shown = _instance(row, package, url, None)
        return entity(shown, version=row.version, status=201, location=shown["_links"]["self"]["href"])

    @router.get("/app_instances")
    async def every(who: caller, tenant: str | None = None) -> Response:
        rows = await instances.list(acting_tenant(who, tenant))
        down = await reasons(ledger, [row for row, _ in rows])
        return entity([_instance(row, package, url, down.get(row.id)) for row, package in rows])

    @router.get("/app_instances/{instance}")
    async def read(instance: str, who: caller) -> Response:
        row, package = await instances.get(instance, acting_tenant(who, None))
        down = await reasons(ledger, [row])
        return entity(_instance(row, package, url, down.get(row.id)), version=row.version)

    @router.delete("/app_instances/{instance}")
    async def remove(instance: str, who: caller) -> Response:
        await instances.remove(who.subject, instance, acting_tenant(who, None))
        return Response(status_code=204)

    @router.post("/app_instances/{instance}/instantiate")
    async def instantiate(instance: str, wish: InstantiateAppRequest, who: caller) -> Response:
        host = wish.mec_host_information[0].host_id if wish.mec_host_information else None
        order = await instances.instantiate(who.subject, instance, acting_tenant(who, None), host)
        return _accepted(order)

    @router.post("/app_instances/{instance}/terminate")
    async def terminate(instance: str, wish: TerminateAppRequest, who: caller) -> Response:
        tenant = acting_tenant(who, None)
        await instances.get(instance, tenant)
        if wish.termination_type != "FORCEFUL":
            raise TerminationUnsupported(
                "applications are not told before they are stopped", advice="Terminate with the type FORCEFUL."
            )
        parameters = wish.model_dump(by_alias=True, exclude_none=True)
        order = await instances.terminate(who.subject, instance, tenant, parameters)
        return _accepted(order)

    @router.get("/app_lcm_op_occs")
    async def operations(who: caller, tenant: str | None = None) -> Response:
        rows = await instances.operations(acting_tenant(who, tenant))
        return entity([_operation(row, url) for row in rows])

    @router.get("/app_lcm_op_occs/{operation}")
    async def operation(operation: str, who: caller) -> Response:
        return entity(_operation(await instances.operation(operation, acting_tenant(who, None)), url))

    def _accepted(order: OperationRow) -> Response:
        return Response(status_code=202, headers={"Location": f"{url}/app_lcm_op_occs/{order.id}"})

    return router


def log_router(verifier: TokenVerifier, instances: Instances, fleet: Fleet) -> APIRouter:
    """Return the endpoint that shows what an instance wrote to its standard output and error."""
    router = APIRouter(prefix="/platform/v1")
    caller = Annotated[Principal, Depends(require(verifier))]

    @router.get("/instances/{instance}/log")
    async def log(instance: str, who: caller, lines: Annotated[int, Query(ge=1, le=MAX_LOG_LINES)] = 100) -> Response:
        driver = await fleet.driver(await instances.host_of(instance, acting_tenant(who, None)))
        return entity(await driver.instance_log(instance, lines=lines))

    return router


def _instance(row: InstanceRow, package: PackageRow, url: str, down: Down | None) -> dict[str, Any]:
    here = f"{url}/app_instances/{row.id}"
    appd: dict[str, Any] = package.appd or {}
    document: dict[str, Any] = {
        "id": row.id,
        "tenant": row.tenant,
        "appInstanceName": row.name,
        "appInstanceDescription": row.description,
        "appDId": package.app_d_id,
        "appProvider": appd.get("appProvider"),
        "appName": appd.get("appName"),
        "appSoftVersion": appd.get("appSoftVersion"),
        "appDVersion": appd.get("appDVersion"),
        "appPkgId": package.id,
        "instantiationState": row.state,
        "_links": {
            "self": {"href": here},
            "instantiate": {"href": f"{here}/instantiate"},
            "terminate": {"href": f"{here}/terminate"},
        },
    }
    if row.state == INSTANTIATED:
        document["instantiatedAppState"] = {"operationalState": "STARTED" if down is None else "STOPPED"}
        document |= {"host": row.host, "address": row.address, "ready": row.ready}
    if down is not None:
        document["stopped"] = {"code": down.code, "detail": down.detail}
        if down.retry_at is not None:
            document["stopped"]["retryAt"] = rfc3339(down.retry_at)
    return {name: value for name, value in document.items() if value is not None}


def _operation(row: OperationRow, url: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": row.id,
        "operationState": row.state,
        "stateEnteredTime": seconds(row.entered_at),
        "startTime": seconds(row.started_at),
        "started": rfc3339(row.started_at),
        "entered": rfc3339(row.entered_at),
        "lcmOperation": row.operation,
        "operationParams": row.parameters,
        "_links": {
            "self": {"href": f"{url}/app_lcm_op_occs/{row.id}"},
            "appInstance": {"href": f"{url}/app_instances/{row.instance}"},
        },
    }
    if row.code is not None:  # why it failed, or what it waits for
        document["error"] = {"code": row.code, "detail": row.detail}
    return document
