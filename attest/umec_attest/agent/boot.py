"""`python -m umec_attest.agent.boot`: what a node image starts: enrolment if there was none yet, and then the agent.

The image says to which site the node belongs and which CA it has; both are measured with it. The state lies where
whoever holds the disk writes: one that names another site is not run with, the node enrolls anew. The ticket comes from
outside: it is only shown to the verifier, and nothing is believed because of it. Without one the node asks all the
same: an operator may have allowed its TPM, or approves it then.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from umec_attest.agent.binding import Binding, load_binding
from umec_attest.agent.enrol import EnrolmentPlan, enrol, plan_enrolment
from umec_attest.agent.errors import AgentStateInvalid, ClockBehind, StateOfAnotherSite, TicketInvalid, TicketMissing
from umec_attest.agent.fields import FieldInvalid, read_object
from umec_attest.agent.keepsake import Keepsake
from umec_attest.agent.pace import Pace
from umec_attest.agent.running import Options, run_until_told
from umec_attest.agent.state import URL, NodeState, load_state, state_exists
from umec_attest.agent.ticket import MAX_TICKET
from umec_attest.agent.verdict_file import VerdictFile
from umec_attest.agent.version_floor import VersionFloor
from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_core.remote import RemoteRefused, RemoteUnavailable

__all__ = ["Site", "check_clock", "check_state", "main", "persist", "read_site"]

TCTI: Final = "device:/dev/tpmrm0"
REACHING: Final = Pace(first=5.0, longest=30.0)
"""Between tries to reach the site: the network may be later than the node."""
TICKET_REQUIRED: Final = "ticket-required"
"""What a site says that takes no node without a ticket whose TPM no operator has allowed."""
REFUSED: Final = Pace(first=10.0, longest=900.0)
"""After a refusal: each try to enrol makes keys in the TPM, and work for the verifier."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the image says: the platform's URL and its CA in PEM."""

    url: str
    ca: str


def read_site(path: Path) -> Site:
    """Read `node.json` of the image, and the CA that it names. Raises AgentStateInvalid."""
    try:
        fields = read_object(path.read_bytes())
        url = fields.text("url", longest=512, pattern=URL)
        ca = Path(fields.text("ca", shortest=1, longest=255))
        fields.end()
        return Site(url, ca.read_text(encoding="ascii", errors="replace"))
    except FieldInvalid as error:
        raise AgentStateInvalid(f"the image does not say to which site this node belongs: {error.place}") from error
    except OSError as error:
        raise AgentStateInvalid(f"the image does not say to which site this node belongs: {error.strerror}") from error


def check_clock(now: datetime, site: Path) -> None:
    """Compare the clock with the date of the image, which its files have. Raises ClockBehind.

    A clock that was set back would make certificates good again that have expired.
    """
    made = datetime.fromtimestamp(site.stat().st_mtime, UTC)
    if now < made:
        raise ClockBehind(
            f"the clock says {now:%Y-%m-%d %H:%M}, and this image was made {made:%Y-%m-%d}: set the clock"
        )


def check_state(state: NodeState, site: Site, tcti: str) -> None:
    """Compare what the state of a node says with what its image says. Raises StateOfAnotherSite."""
    said = {"url": (state.url, site.url), "ca": (state.ca, site.ca), "tcti": (state.tcti, tcti)}
    other = [name for name, (found, expected) in said.items() if found != expected]
    if other:
        raise StateOfAnotherSite(f"the state of this node is not of its image's site: {', '.join(other)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Enrol until it is done, then run the agent until SIGTERM, and return the exit status 0."""
    parser = argparse.ArgumentParser(prog="umec-node-boot", description=__doc__)
    parser.add_argument("--site", type=Path, required=True, help="what the image says (JSON)")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--boot-log", type=Path, required=True)
    parser.add_argument("--ticket", type=Path, required=True, help="a file that may be missing")
    parser.add_argument(
        "--identity", type=Path, help="an area outside of encrypted data, for a copy of who the node is"
    )
    parser.add_argument("--verdict", type=Path, help="a file in memory, for the last verdict")
    parser.add_argument("--keeper", type=Path, help="folder of the program that keeps the disk: /run/umec")
    parser.add_argument("--owner", type=Path, help="whose approvals the node key is bound to (PEM)")
    parser.add_argument("--approval", type=Path, help="the approval of what runs; without it no key is made or used")
    parser.add_argument("--tcti", default=TCTI)
    given = parser.parse_args(arguments)
    persist(lambda: _run(given), time.sleep)
    return 0


def persist(work: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """Work until that ends without a refusal; after each it waits longer, and as long as a service asks for."""
    failures = 0
    while True:
        try:
            return work()
        except UmecError as error:
            failures += 1
            event, pace = ("waiting", REACHING) if isinstance(error, RemoteUnavailable) else ("refused", REFUSED)
            seconds = pace.after(failures, asked=error.retry_after)
            told = {"code": error.code, "detail": error.detail, "retry_seconds": round(seconds, 1)}
        _say({"event": event} | told)
        sleep(seconds)


def _run(given: argparse.Namespace) -> None:
    """Enrol if that was not done yet, and run the agent. Raises UmecError."""
    site = read_site(given.site)
    check_clock(system_clock(), given.site)
    if not _enrolled(site, given.state, given.tcti):
        _enrol(site, given.state, given.ticket, given.tcti, load_binding(given.owner, given.approval))
    listeners: list[Callable[[Mapping[str, object]], None]] = [VersionFloor(given.tcti, _say).heard]
    listeners += [] if given.verdict is None else [VerdictFile(given.verdict).heard]
    listeners += [] if given.identity is None else [Keepsake(given.identity, given.state).heard]

    def report(line: Mapping[str, object]) -> None:
        _say(line)
        for heard in listeners:
            heard(line)

    options = Options(
        given.state,
        tcti=given.tcti,
        boot_log=given.boot_log,
        keeper=given.keeper,
        owner=given.owner,
        approval=given.approval,
    )
    run_until_told(options, report)


def _enrolled(site: Site, state: Path, tcti: str) -> bool:
    """Tell whether the node was enrolled with its own site. Raises AgentStateInvalid."""
    if not state_exists(state):
        return False
    try:
        check_state(load_state(state), site, tcti)
    except StateOfAnotherSite as error:
        _say({"event": "enrolling-anew", "code": error.code, "detail": error.detail})
        return False
    return True


def _enrol(site: Site, state: Path, ticket: Path, tcti: str, binding: Binding | None) -> None:
    """Enrol, also where the state is one of another site. Raises UmecError."""
    text = _read_ticket(ticket)
    if text is None:
        plan = EnrolmentPlan(node=None, url=site.url, ca=site.ca, tcti=tcti, ticket=None, binding=binding)
    else:
        plan = plan_enrolment(ticket=text, node=None, url=site.url, ca=site.ca, tcti=tcti, binding=binding)
    try:
        done = asyncio.run(enrol(plan, state, replace=True))
    except RemoteRefused as error:
        if error.code != TICKET_REQUIRED:
            raise
        raise TicketMissing(
            "this node was handed no ticket, and its site takes none without: write one to the start of its data "
            f"partition, or allow its TPM ({error.advice})",
            advice="umec node ticket makes one",
        ) from error
    told = {"event": "enrolled", "node": done.node, "standing": done.standing, "approved": done.approved}
    _say(told if done.approved else told | {"ek_sha256": done.ek_sha256, "advice": f"umec node approve {done.node}"})


def _read_ticket(path: Path) -> str | None:
    """Return what was handed in as a ticket, as far as a ticket is long; None for nothing. Raises TicketInvalid."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_TICKET + 1).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TicketInvalid(f"what was handed in as a ticket cannot be read: {error.strerror}") from error


def _say(line: Mapping[str, object]) -> None:
    """Tell it on the console, behind what tells the node's programs from its kernel."""
    sys.stdout.write(f"umec-node: {json.dumps(line, ensure_ascii=False)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
