"""`python -m umec_platform.netd`: netd of a node image, by one settings file, for the node that the agent proved to be.

    {"verifier_issuer", "verifier_jwks", "decision_issuer", "decision_jwks", "access": [INTERFACE, …],
     "access_address", "pool", "services": ["ADDRESS:PORT", …], "lease_seconds"}

Whose word counts is in that file, and measured with it. The node's name is not known when an image is built: it is
asked of the agent. Another name would not open anything: what is for a node, the site sends to the relay that shows the
certificate of that node, and to no other.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_attest.agent.asking import ask
from umec_attest.agent.requests import Status
from umec_core.clock import system_clock
from umec_core.errors import Invalid, UmecError
from umec_core.jose import KeySet
from umec_core.telemetry import configure_logging
from umec_platform.netd.leases import LeaseTerms
from umec_platform.netd.server import listen
from umec_platform.netd.service import open_service
from umec_platform.netd.settings import NetdSettings

__all__ = ["SettingsInvalid", "main", "own_name", "read_settings", "serve_until_told"]

ASK_EVERY: Final = 2.0
"""Seconds between asks for the node's name, until it has attested."""

Interface = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,14}$")]
Service = Annotated[str, Field(pattern=r"^[0-9.]{7,15}:[0-9]{1,5}$")]


class SettingsInvalid(Invalid):
    """The settings file of netd cannot be used."""

    code = "settings-invalid"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    verifier_issuer: Annotated[str, Field(min_length=1)]
    verifier_jwks: dict[str, Any]
    decision_issuer: Annotated[str, Field(min_length=1)]
    decision_jwks: dict[str, Any]
    access: Annotated[list[Interface], Field(min_length=1, max_length=16)]
    access_address: IPv4Interface
    pool: IPv4Network
    services: list[Service]
    lease_seconds: Annotated[float, Field(ge=1, le=3600)]


def read_settings(path: Path, *, node: str, state: Path, agent: Path) -> NetdSettings:
    """Return the settings in a file, for a node whose `agent` measures every start; raises `SettingsInvalid`."""
    try:
        said = _File.model_validate_json(path.read_bytes())
        terms = LeaseTerms(
            node=node,
            keys=KeySet.from_jwks(said.verifier_jwks),
            issuer=said.verifier_issuer,
            time=timedelta(seconds=said.lease_seconds),
        )
        return NetdSettings(
            state=state,
            terms=terms,
            decision_keys=KeySet.from_jwks(said.decision_jwks),
            decision_issuer=said.decision_issuer,
            access=tuple(said.access),
            access_address=said.access_address,
            pool=said.pool,
            services=tuple(_service(one) for one in said.services),
            agent=agent,
        )
    except ValidationError as error:
        places = ", ".join(".".join(str(step) for step in fault["loc"]) for fault in error.errors())
        raise SettingsInvalid(f"{path}: {places or 'this is no JSON'}") from error
    except (OSError, ValueError, UmecError) as error:
        raise SettingsInvalid(f"{path}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, and return the exit status."""
    parser = argparse.ArgumentParser(prog="umec-netd", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--agent", type=Path, required=True, help="state directory of the running agent")
    parser.add_argument("--state", type=Path, required=True, help="folder that is private to netd")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--allow-uid", type=int, required=True, help="user of the relay")
    given = parser.parse_args(arguments)
    configure_logging(json=True)
    try:
        asyncio.run(_run(given))
    except UmecError as error:
        sys.stderr.write(f"{error.code}: {error.detail}\n")
        return 1
    return 0


async def _run(given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    read_settings(given.settings, node="none", state=given.state, agent=given.agent)  # what is wrong is said at once
    node = await own_name(given.agent, stop)
    if node is not None:
        settings = read_settings(given.settings, node=node, state=given.state, agent=given.agent)
        await serve_until_told(settings, given.socket, [given.allow_uid], stop)


async def own_name(agent: Path, stop: asyncio.Event) -> str | None:
    """Return the node's name as soon as the agent with this state folder has attested; None if told to end before."""
    while not stop.is_set():
        try:
            said = await ask(agent, Status())
        except UmecError:
            said = None
        found = None if said is None else said.get("status", {}).get("node")
        if found is not None:
            return str(found)
        try:
            await asyncio.wait_for(stop.wait(), ASK_EVERY)
        except TimeoutError:
            continue
    return None


async def serve_until_told(settings: NetdSettings, socket: Path, allowed: Sequence[int], stop: asyncio.Event) -> None:
    """Serve one host until `stop` is set, and leave nothing behind."""
    async with open_service(settings, system_clock) as service, listen(service, socket, allowed=allowed):
        sys.stdout.write(f"netd of {settings.terms.node} answers at {socket}\n")
        sys.stdout.flush()
        await stop.wait()


def _service(text: str) -> tuple[IPv4Address, int]:
    address, _, port = text.rpartition(":")
    if not 0 < int(port) <= 65535:
        raise ValueError(f"{text} has no port")
    return IPv4Address(address), int(port)


if __name__ == "__main__":
    sys.exit(main())
