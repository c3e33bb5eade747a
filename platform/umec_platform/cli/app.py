"""`umec app`: application packages and instances."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from umec_core.errors import Refused, UmecError, Unavailable
from umec_platform.cli.advice import advice_for
from umec_platform.cli.files import read_file
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_platform.cli.platform_api import PlatformApi

__all__ = ["OperationFailed", "OperationSlow", "app"]

app = typer.Typer()

POLL: Final = 0.2
"""Seconds between looks at a running operation."""

CredentialFile = Annotated[
    Path, typer.Option("--credential", envvar="UMEC_CREDENTIAL", help="The client's credential file.")
]
Tenant = Annotated[str | None, typer.Option(help="The tenant; an operator names it, a tenant's token knows it.")]
Instance = Annotated[str, typer.Argument(help="The application instance.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the end of the operation.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class OperationFailed(Refused):
    """An operation ended in failure; the code is the reason that the platform gave."""

    code = "operation-failed"


class OperationSlow(Unavailable):
    """An operation has not ended in time; it goes on."""

    code = "operation-slow"


@app.command()
@refusals
def onboard(
    package: Annotated[
        Path, typer.Argument(help="A package (ZIP with appd.json), an appd.json, or a folder with one.")
    ],
    credential: CredentialFile,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Onboard an application package."""
    from umec_platform.cli.platform_api import platform_api

    path = package / "appd.json" if package.is_dir() else package
    content = read_file(path)
    media_type = "application/zip" if content.startswith(b"PK") else "application/json"

    async def run() -> dict[str, Any]:
        async with platform_api(credential) as api:
            made = await api.post("/app_pkgm/v1/app_packages", {"appPkgName": path.name}, tenant)
            here = f"/app_pkgm/v1/app_packages/{made['id']}"
            async with _or_removed(api, here):
                answer = await api.send(
                    "PUT", f"{here}/package_content", content=content, headers={"Content-Type": media_type}
                )
            found: dict[str, Any] = answer.json()
            return found

    made = asyncio.run(run())
    emit(made, as_json=as_json, human=f"{made['appDId']} is onboarded as package {made['id']} of {made['tenant']}")


@app.command()
@refusals
def instantiate(
    appd: Annotated[str, typer.Argument(help="The appDId of an onboarded package.")],
    credential: CredentialFile,
    tenant: Tenant = None,
    host: Annotated[str | None, typer.Option(help="The MEC host; one with a trusted node if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the instance.")] = None,
    wait: Wait = 120.0,
    as_json: AsJson = False,
) -> None:
    """Make an instance and start it: admission, decision, image, credential, container."""
    from umec_platform.cli.platform_api import platform_api

    async def run() -> dict[str, Any]:
        async with platform_api(credential) as api:
            wish = {"appDId": appd} | ({} if name is None else {"appInstanceName": name})
            made = await api.post("/app_lcm/v1/app_instances", wish, tenant)
            here = f"/app_lcm/v1/app_instances/{made['id']}"
            where = {} if host is None else {"mecHostInformation": [{"hostId": host}]}
            async with _or_removed(api, here):
                await _operate(api, f"{here}/instantiate", where, wait)
            found: dict[str, Any] = await api.get(here)
            return found

    made = asyncio.run(run())
    emit(made, as_json=as_json, human=f"{made['id']} runs on {made['host']} at {made['address']}")


@app.command()
@refusals
def terminate(instance: Instance, credential: CredentialFile, wait: Wait = 120.0, as_json: AsJson = False) -> None:
    """Stop an instance and remove it with its services, rules and credential."""
    from umec_platform.cli.platform_api import platform_api

    async def run() -> None:
        async with platform_api(credential) as api:
            here = f"/app_lcm/v1/app_instances/{instance}"
            await _operate(api, f"{here}/terminate", {"terminationType": "FORCEFUL"}, wait)
            await api.send("DELETE", here)

    asyncio.run(run())
    emit({"id": instance, "terminated": True}, as_json=as_json, human=f"{instance} is terminated")


@app.command("list")
@refusals
def list_(credential: CredentialFile, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """List packages and instances."""
    from umec_platform.cli.platform_api import platform_api

    async def run() -> dict[str, Any]:
        async with platform_api(credential) as api:
            return {
                "packages": await api.get("/app_pkgm/v1/app_packages", tenant),
                "instances": await api.get("/app_lcm/v1/app_instances", tenant),
            }

    found = asyncio.run(run())
    packages = [f"package  {each['id']}  {each['tenant']}  {each.get('appDId', '-')}" for each in found["packages"]]
    instances = [
        f"instance {each['id']}  {each['tenant']}  {each['appDId']}  {each['instantiationState']}"
        f"  {each.get('host', '-')}  {each.get('address', '-')}  {each.get('stopped', {}).get('code', '')}"
        for each in found["instances"]
    ]
    emit(found, as_json=as_json, human="\n".join([*packages, *instances]) or "no packages, no instances")


@app.command()
@refusals
def show(instance: Instance, credential: CredentialFile, as_json: AsJson = False) -> None:
    """Show an instance: where it runs, or why it does not, when it is tried again, and what to do."""
    from umec_platform.cli.platform_api import platform_api

    async def run() -> dict[str, Any]:
        async with platform_api(credential) as api:
            found: dict[str, Any] = await api.get(f"/app_lcm/v1/app_instances/{instance}")
            return found

    found = asyncio.run(run())
    steps = _next_steps(found)
    emit(found | {"next": steps}, as_json=as_json, human=_shown(found, steps))


@app.command()
@refusals
def log(
    instance: Instance,
    credential: CredentialFile,
    lines: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last lines.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show what an instance wrote last to its standard output and error, in all its runs on its host."""
    from umec_platform.cli.platform_api import platform_api

    async def run() -> dict[str, Any]:
        async with platform_api(credential) as api:
            found: dict[str, Any] = await api.get(f"/platform/v1/instances/{instance}/log?lines={lines}")
            return found

    found = asyncio.run(run())
    emit(found, as_json=as_json, human=found["text"].removesuffix("\n"))


def _shown(found: dict[str, Any], steps: list[str]) -> str:
    """Return an instance for a reader."""
    lines = [
        f"instance  {found['id']}, tenant {found['tenant']}, of {found['appDId']} (package {found['appPkgId']})",
        f"state     {found['instantiationState']}"
        + (f", {state['operationalState']}" if (state := found.get("instantiatedAppState")) else ""),
    ]
    if "host" in found:
        ready = "has said that it is ready" if found.get("ready") else "has not said that it is ready"
        lines.append(f"runs on   {found['host']} at {found.get('address', 'no address now')}; it {ready}")
    if down := found.get("stopped"):
        again = f"; tried again at {down['retryAt']}" if "retryAt" in down else ""
        lines.append(f"down      {down['code']}: {down['detail']}{again}")
    return "\n".join([*lines, *(f"next      {step}" for step in steps)])


def _next_steps(found: dict[str, Any]) -> list[str]:
    """Return what to do about an instance; nothing for one that runs and is ready."""
    here = found["id"]
    if down := found.get("stopped"):
        advice = advice_for(down["code"], None)
        return [*([] if advice is None else [advice]), f"umec app log {here} shows what it wrote last"]
    if found["instantiationState"] != "INSTANTIATED":
        return [f"umec app instantiate {found['appDId']} starts an instance; this one never ran, or was terminated"]
    return [] if found.get("ready") else [f"umec app log {here}, if it does not come up (MEC 011 confirm_ready)"]


@contextlib.asynccontextmanager
async def _or_removed(api: "PlatformApi", path: str) -> AsyncIterator[None]:
    """Remove again what was made for a step that failed; what is told is why the step failed, not what came after."""
    try:
        yield
    except OperationSlow:
        raise  # it goes on
    except UmecError:
        with contextlib.suppress(UmecError):
            await api.send("DELETE", path)
        raise


async def _operate(api: "PlatformApi", path: str, body: dict[str, Any], wait: float) -> None:
    """Order an operation and return when it is completed; raises `OperationFailed` or `OperationSlow`."""
    answer = await api.send("POST", path, json=body)
    deadline = time.monotonic() + wait
    while True:
        operation = await api.get(answer.headers["location"])
        if operation["operationState"] == "COMPLETED":
            return
        if operation["operationState"] == "FAILED":
            error = OperationFailed(operation["error"]["detail"])
            error.code = operation["error"]["code"]  # type: ignore[misc]  # the platform's reason, known only now
            raise error
        if time.monotonic() > deadline:
            raise OperationSlow(f"the operation has not ended within {wait:g} seconds; it goes on")
        await asyncio.sleep(POLL)
