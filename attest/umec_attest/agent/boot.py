"""`python -m umec_attest.agent.boot`: what a node image starts: enrolment if there was none yet, and then the agent.

The image says to which site the node belongs and which CA it has; both are measured with it. The ticket comes from
outside: it is only shown to the verifier, and nothing is believed because of it.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_attest.agent.enrol import enrol, plan_enrolment
from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.fields import FieldInvalid, read_object
from umec_attest.agent.running import Options, run_until_told
from umec_attest.agent.state import URL, state_exists
from umec_core.errors import UmecError
from umec_core.remote import RemoteUnavailable

__all__ = ["Site", "main", "parse_site"]

TCTI: Final = "device:/dev/tpmrm0"
AGAIN: Final = 5.0
"""Seconds between tries to enrol: the network may be later than the node."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the image says: the platform's URL, the file of its CA, and the image that the node is enrolled for."""

    url: str
    ca: Path
    image: str


def parse_site(data: bytes) -> Site:
    """Read `node.json`. Raises AgentStateInvalid."""
    try:
        fields = read_object(data)
        site = Site(
            url=fields.text("url", longest=512, pattern=URL),
            ca=Path(fields.text("ca", shortest=1, longest=255)),
            image=fields.text("image", shortest=1, longest=63),
        )
        fields.end()
    except FieldInvalid as error:
        raise AgentStateInvalid(f"the image does not say to which site this node belongs: {error.place}") from error
    return site


def main(arguments: Sequence[str] | None = None) -> int:
    """Enrol until it is done, then run the agent until SIGTERM; returns the exit status."""
    parser = argparse.ArgumentParser(prog="umec-node-boot", description=__doc__)
    parser.add_argument("--site", type=Path, required=True, help="what the image says (JSON)")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--boot-log", type=Path, required=True)
    parser.add_argument("--ticket", type=Path, required=True, help="a file that may be missing")
    given = parser.parse_args(arguments)
    try:
        if not state_exists(given.state):
            _enrol(parse_site(given.site.read_bytes()), given.state, given.ticket)
        run_until_told(Options(given.state, boot_log=given.boot_log), _say)
    except UmecError as error:
        _say({"event": "refused", "code": error.code, "detail": error.detail})
        return 1
    return 0


def _enrol(site: Site, state: Path, ticket: Path) -> None:
    """Enrol; what may work later (a network, a site that starts) is tried again. Raises UmecError."""
    text = ticket.read_text(encoding="ascii", errors="replace") if ticket.exists() else None
    ca = site.ca.read_text(encoding="ascii", errors="replace")
    plan = plan_enrolment(ticket=text, node=None, url=site.url, ca=ca, tcti=TCTI)
    while True:
        try:
            done = asyncio.run(enrol(plan, state))
        except RemoteUnavailable as error:
            _say({"event": "waiting", "code": error.code, "detail": error.detail})
            time.sleep(AGAIN)
            continue
        _say({"event": "enrolled", "node": done.node, "standing": done.standing, "approved": done.approved})
        return


def _say(line: Mapping[str, object]) -> None:
    """Tell it on the console, behind what tells the node's programs from its kernel."""
    sys.stdout.write(f"umec-node: {json.dumps(line, ensure_ascii=False)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
