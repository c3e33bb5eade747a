# ruff: noqa: INP001 - one script, no package
"""An API of your own beside µMEC: it takes the platform's tokens, and refuses those of a node that has fallen at once.

    kiosk.py --credential FILE --verifier-jwks FILE --audience URL --socket PATH

`FILE` is what `umec client add` wrote, for a client with the scope standings:read. The kiosk follows the standing feed;
when it has heard nothing for ten seconds it no longer knows who stands, and refuses what is bound to a node
(`standing-stale`). It listens on a unix socket: put your own server in front of it.
"""

import argparse
import asyncio
import json
import signal
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends

from umec_core.client import BoundedGet, OAuthClient, http_client, load_credential
from umec_core.clock import system_clock
from umec_core.http import create_app, require
from umec_core.jose import KeySet
from umec_core.principal import Principal
from umec_core.server import Listener, serve
from umec_core.standing import StandingFollower, StandingView
from umec_core.tokens import RemoteKeys, StaticKeys, TokenVerifier

SCOPE = "mec:services.read"


def hours(verifier: TokenVerifier) -> APIRouter:
    """Return the API: who has the scope is told when the kiosk is open."""
    router = APIRouter()

    @router.get("/hours")
    async def read(who: Annotated[Principal, Depends(require(verifier, SCOPE))]) -> dict[str, str]:
        return {"open": "always", "for": who.subject}

    return router


async def run(options: argparse.Namespace) -> None:
    """Follow the feed, and serve until told to stop."""
    credential, stop = load_credential(options.credential), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with http_client(credential.ca) as http:
        view = StandingView()
        follower = StandingFollower(
            OAuthClient(credential, http),
            view=view,
            keys=StaticKeys(KeySet.from_jwks(json.loads(options.verifier_jwks.read_bytes()))),
            issuer=f"{credential.issuer}/attest/v1",
            clock=system_clock,
        )
        verifier = TokenVerifier(
            issuer=credential.issuer,
            audience=options.audience,
            keys=RemoteKeys(f"{credential.issuer}/oauth2/jwks", BoundedGet(http), clock=system_clock),
            standings=view,
            clock=system_clock,
            base=options.base,
        )
        following = asyncio.create_task(follower.run())
        try:
            await serve([Listener(create_app("kiosk", [hours(verifier)]), unix=options.socket)], stop)
        finally:
            following.cancel()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--credential", type=Path, required=True, help="the kiosk's own client")
    parser.add_argument(
        "--verifier-jwks", type=Path, required=True, help="the keys of the verifier (verifier.jwks.json)"
    )
    parser.add_argument(
        "--audience", required=True, help="whose tokens are taken: the resource that they were asked for"
    )
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--base", default="http://kiosk", help="the URL under which callers know the kiosk")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
