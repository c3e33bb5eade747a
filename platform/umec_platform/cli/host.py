"""`umec host`: MEC hosts, their nodes and their netd."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from umec_core.errors import Invalid
from umec_platform.cli.output import emit, refusals

__all__ = ["app"]

app = typer.Typer()

CredentialFile = Annotated[
    Path, typer.Option("--credential", envvar="UMEC_CREDENTIAL", help="The client's credential file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
@refusals
def add(
    host: Annotated[str, typer.Argument(help="The host's id: lower-case letters, digits and hyphens.")],
    credential: CredentialFile,
    netd: Annotated[Path | None, typer.Option(help="The unix socket of a `umec netd` on this machine.")] = None,
    node: Annotated[str | None, typer.Option(help="The node that is attested; the host's id if left out.")] = None,
    by_relay: Annotated[
        bool, typer.Option("--relay", help="The netd is on the node, where `umec host relay` dials out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a host: its netd is on this machine (--netd), or on another, which is the node (--relay)."""
    from umec_platform.cli.platform_api import platform_api

    if (netd is None) is not by_relay:
        raise Invalid("either --netd or --relay says where the host's netd is")
    address = f"node:{node or host}" if netd is None else str(netd.absolute())
    wish = {"id": host, "node": node or host, "netd": address}

    async def make() -> dict[str, Any]:
        async with platform_api(credential) as api:
            return await api.post("/platform/v1/hosts", wish)

    made = asyncio.run(make())
    human = f"host {made['id']} on node {made['node']} ({made['standing'] or 'not known to the verifier yet'})"
    emit(made, as_json=as_json, human=human)


@app.command()
@refusals
def relay(
    agent: Annotated[Path, typer.Option(help="State folder of the running `umec node run`.")],
    netd: Annotated[Path, typer.Option(help="The unix socket of `umec netd`, which lets this user in.")],
    images: Annotated[Path, typer.Option(help="Folder for fetched images, which netd may read.")],
    site: Annotated[str, typer.Option(help="The management URL.")],
    images_mebibytes: Annotated[int, typer.Option(min=1, max=1024 * 1024, help="Size of that folder.")] = 4096,
    as_json: Annotated[bool, typer.Option("--json", help="Log as JSON, and say so when it begins.")] = False,
) -> None:
    """Carry the site's requests to the netd of this node, which need not be reachable. SIGTERM ends it."""
    from umec_core.telemetry import configure_logging
    from umec_platform.relay.carrier import Relay, relay_until_told
    from umec_platform.relay.doors import AgentSocket

    configure_logging(json=as_json)
    made = Relay(AgentSocket(agent), site=site, netd=netd, images=images.absolute(), images_mebibytes=images_mebibytes)
    emit({"site": site, "netd": str(netd)}, as_json=as_json, human=f"relaying between {site} and {netd}")
    asyncio.run(relay_until_told(made))


@app.command("list")
@refusals
def list_(credential: CredentialFile, as_json: AsJson = False) -> None:
    """List all hosts with what their nodes are worth."""
    from umec_platform.cli.platform_api import listed

    hosts = asyncio.run(listed(credential, "/platform/v1/hosts"))
    human = "\n".join(f"{each['id']}  {each['node']}  {each['standing'] or 'unknown'}" for each in hosts)
    emit({"hosts": hosts}, as_json=as_json, human=human or "no hosts")
