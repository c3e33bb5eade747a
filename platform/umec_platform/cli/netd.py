"""`umec netd`: the privileged helper of one MEC host, in the network namespace of that host."""

import asyncio
import signal
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umec_core.errors import Invalid
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_core.jose import KeySet
    from umec_platform.netd.settings import NetdSettings

__all__ = ["netd"]


class OptionInvalid(Invalid):
    """An option of the command that cannot be used."""

    code = "option-invalid"


@refusals
def netd(
    node: Annotated[str, typer.Option(help="Identifier of this node.")],
    socket: Annotated[Path, typer.Option(help="Unix socket to listen on.")],
    state: Annotated[Path, typer.Option(help="Folder that is private to netd.")],
    verifier_jwks: Annotated[Path, typer.Option(help="Keys that sign standing statements.")],
    verifier_issuer: Annotated[str, typer.Option(help="Issuer of standing statements.")],
    decision_jwks: Annotated[Path, typer.Option(help="Keys that sign admission decisions.")],
    decision_issuer: Annotated[str, typer.Option(help="Issuer of admission decisions.")],
    access: Annotated[list[str], typer.Option(help="Interface towards the users; the first has the address.")],
    access_address: Annotated[str, typer.Option(help="Address and prefix on the access interface, as 192.0.2.1/24.")],
    allow_uid: Annotated[list[int], typer.Option(help="User that may speak to netd, as netd's namespace numbers it.")],
    pool: Annotated[str, typer.Option(help="Each tenant gets a /24 of this.")] = "10.64.0.0/16",
    service: Annotated[
        list[str] | None, typer.Option(help="ADDRESS:PORT that every instance may call by TCP (Mp1).")
    ] = None,
    agent: Annotated[
        Path | None, typer.Option(help="State folder of the node's agent: it measures every start, or there is none.")
    ] = None,
    lease_seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long a statement holds.")] = 90.0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Log as JSON, and say so when ready.")] = False,
) -> None:
    """Serve one MEC host until it is told to end, and leave nothing behind."""
    from umec_core.telemetry import configure_logging
    from umec_platform.netd.leases import LeaseTerms
    from umec_platform.netd.settings import NetdSettings

    configure_logging(json=as_json)
    terms = LeaseTerms(
        node=node, keys=_keys(verifier_jwks), issuer=verifier_issuer, time=timedelta(seconds=lease_seconds)
    )
    try:
        settings = NetdSettings(
            state=state.resolve(),
            terms=terms,
            decision_keys=_keys(decision_jwks),
            decision_issuer=decision_issuer,
            access=tuple(access),
            access_address=IPv4Interface(access_address),
            pool=IPv4Network(pool),
            services=tuple(_service(one) for one in service or ()),
            agent=None if agent is None else agent.resolve(),
        )
    except ValueError as error:
        raise OptionInvalid(str(error)) from error
    asyncio.run(_serve(settings, socket, allow_uid, as_json=as_json))


async def _serve(settings: "NetdSettings", socket: Path, allowed: list[int], *, as_json: bool) -> None:
    from umec_core.clock import system_clock
    from umec_platform.netd.server import listen
    from umec_platform.netd.service import open_service

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_service(settings, system_clock) as service, listen(service, socket, allowed=allowed):
        emit({"ready": str(socket), "node": settings.terms.node}, as_json=as_json, human=f"netd answers at {socket}")
        await stop.wait()


def _keys(path: Path) -> "KeySet":
    from umec_core.jose import KeySet
    from umec_platform.cli.files import read_object

    return KeySet.from_jwks(read_object(path))


def _service(text: str) -> tuple[IPv4Address, int]:
    address, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
        raise OptionInvalid(f"{text} is not ADDRESS:PORT")
    return IPv4Address(address), int(port)
