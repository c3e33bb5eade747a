"""`umec up`: a whole site on this machine."""

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_platform.composition.settings import SiteSettings

__all__ = ["up"]

OTHERS: Final = frozenset(
    {"VECTORS", "CREDENTIAL", "TCTI", "AGENT_STATE", "TICKET", "CONFIG", "REGISTRY", "DEMO_SANDBOX", "TRY"}
)
"""Variables that begin like settings and belong to other commands."""


@refusals
def up(
    config: Annotated[
        Path | None, typer.Option(envvar="UMEC_CONFIG", help="Settings (TOML); none: the defaults.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="Where keys and databases live.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Log as JSON, and say so when ready.")] = False,
) -> None:
    """Serve the authority, the registry and the MEC platform on this machine, with netd beside them; Ctrl-C ends it.

    Without settings it serves on loopback. It makes its CA, its keys and the operator's credential at the first start.
    """
    import uvloop

    from umec_core.settings import load_settings
    from umec_core.telemetry import configure_logging
    from umec_platform.composition.settings import SiteSettings

    configure_logging(json=as_json)
    settings = load_settings(SiteSettings, file=config, environ=os.environ, shared=OTHERS)
    if state is not None:
        settings = settings.model_copy(update={"state": state})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, as_json=as_json))


async def _serve(settings: "SiteSettings", *, as_json: bool) -> None:
    from umec_core.clock import system_clock
    from umec_platform.composition.compose import OPERATOR_FILE, open_site

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_site(settings, system_clock) as site:
        credential = settings.state / OPERATOR_FILE
        said = {
            "management": settings.management,
            "mp1": settings.mp1,
            "registry": settings.registry,
            "operator_credential": str(credential),
        }
        emit(said, as_json=as_json, human=_welcome(settings, credential))
        await site.run(stop)


def _welcome(settings: "SiteSettings", credential: Path) -> str:
    lines = [
        f"management  {settings.management}",
        f"Mp1         {settings.mp1}",
        f"registry    {settings.registry}",
        f"operator    export UMEC_CREDENTIAL={credential}",
    ]
    if not settings.attest.reference_signers:
        lines.append("warning     attest.reference_signers is not set: no node can become trusted")
    if settings.attest.ek_roots is None:
        lines.append("warning     attest.ek_roots is not set: no EK certificate is believed")
    elif not any(path.is_file() for path in settings.attest.ek_roots.rglob("[!.]*")):
        lines.append("warning     the folder attest.ek_roots is empty: no EK certificate is believed")
    if settings.attest.software_tpms:
        lines.append("warning     attest.software_tpms is set: makers of software TPMs are believed, as in a test")
    if not settings.netd:
        lines.append("note        no [[netd]] is configured: this machine is no MEC host")
    lines.append(
        "note        all keys of this site lie unsealed in its state folder; there is no offline site root yet"
    )
    return "\n".join(lines)
