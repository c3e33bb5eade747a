"""Time: somebody recorded what was true, and brings it when it is old, or holds back the news.

What is recorded, and where it is brought to, is made early in a run; the attempts come late, so that nobody waits.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

import httpx

from umec_platform.demo.attacks.feed import Courier
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.command import umec_line, wait_for
from umec_platform.demo.hand import ATTEST, PLATFORM, Hand, register
from umec_platform.demo.run import MP1, Run, code_of
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES, inside

__all__ = ["ATTACKS", "LATE", "LIFE_SECONDS", "Patience"]

LIFE_SECONDS: Final = 60
"""The life of an access token in the demo; a real site's default is five minutes."""

LEASE_SECONDS: Final = 5
"""How long a statement holds at the `netd` that is started anew."""

FEED_SECONDS: Final = 10
"""How old the standing feed may be at an API before it decides nothing by it."""

MARGIN_SECONDS: Final = 15.0
"""A long poll that was answered shortly before the wire was cut, and a busy machine."""

KIOSK: Final = Path(__file__).parents[4] / "docs" / "examples" / "kiosk" / "kiosk.py"
SERVICES: Final = f"{MP1}/mec_service_mgmt/v1/services"
HOURS: Final = "http://kiosk/hours"


class Patience:
    """Has a token, a statement about a node, a box with a `netd` of its own, and the wire of an API."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.http = run.clean_up.enter_context(run.http())
        self.operator = Hand.of(self.http, run.state / "operator.json")
        scopes = ["mec:services.read"]
        self.early = register(self.operator, "city-early", kind="application", tenant="city", scopes=scopes)
        node = {"tenant": NODES[0].tenant, "node": NODES[0].name}
        self.visitor = register(self.operator, "city-visitor", kind="application", scopes=scopes, **node)
        self.token = self.early.token(f"{MP1}/")
        if refused := self.use(self.token):
            raise Broken("a new token was refused", refused)
        start_netd(run)
        self.courier = Courier(run, run.folder / "pole" / "netd.sock")
        self.statement = self.courier.statement()
        self.recorded = time.monotonic()
        """When token and statement were new."""
        start_kiosk(run)
        self._cut: float | None = None

    def use(self, token: str) -> str | None:
        """Read services with a token of the early client; return the code of the refusal."""
        return code_of(self.early.call("GET", SERVICES, token))

    @cached_property
    def kiosk(self) -> Hand:
        """Somebody on a node that stands, at the kiosk itself: no wire leads there."""
        transport = httpx.HTTPTransport(uds=str(self.run.folder / "kiosk.sock"))
        http = httpx.Client(transport=transport, timeout=10.0, trust_env=False)
        return Hand(self.run.clean_up.enter_context(http), self.visitor.client_id, self.visitor.key)

    def hours(self) -> str | None:
        """Ask the kiosk; return the code of the refusal."""
        return code_of(self.kiosk.call("GET", HOURS, self.visitor.kept(f"{MP1}/")))

    def cut(self) -> float:
        """Pull the plug between the kiosk and the site, once a good token was taken there; return when that was."""
        if self._cut is None:
            wait_for("the kiosk", self._open, seconds=30.0)
            subprocess.run(["ip", "link", "set", "kiosk", "down"], check=True)
            self._cut = time.monotonic()
        return self._cut

    def _open(self) -> bool | None:
        self.run.processes.check("kiosk")
        try:
            return True if self.hours() is None else None
        except httpx.TransportError:
            return None


def start_netd(run: Run) -> None:
    """Start a `netd` that remembers nothing, in a box of one's own, under the name of a node."""
    folder = run.folder / "pole"
    folder.mkdir()
    _ip("netns add pole")
    _ip("-n pole link set lo up")
    _ip("-n pole link add access type veth peer name eth0")
    _ip("-n pole address add 192.0.2.1/25 dev access")
    _ip("-n pole link set access up")
    options = {
        "node": NODES[0].name,
        "socket": folder / "netd.sock",
        "state": folder / "state",
        "verifier-jwks": run.state / "verifier.jwks.json",
        "verifier-issuer": ATTEST,
        "decision-jwks": run.state / "decision.jwks.json",
        "decision-issuer": PLATFORM,
        "access": "access",
        "access-address": "192.0.2.1/25",
        "allow-uid": os.geteuid(),
        "lease-seconds": LEASE_SECONDS,
    }
    run.processes.start("netd-pole", inside("pole", umec_line("netd", *_words(options), "--json")))


def start_kiosk(run: Run) -> None:
    """Start an API of somebody in the city, on a machine of its own beside the site."""
    _ip("netns add kiosk")
    _ip("link add kiosk type veth peer name uplink netns kiosk")
    _ip("link set kiosk master site up")
    _ip("-n kiosk address add 10.99.0.20/24 dev uplink")
    _ip("-n kiosk link set uplink up")
    credential = run.folder / "kiosk.json"
    kind = ["--kind", "service", "--scope", "standings:read"]
    run.operator("client", "add", "kiosk", *kind, "--out", str(credential))
    options = {
        "credential": credential,
        "verifier-jwks": run.state / "verifier.jwks.json",
        "audience": f"{MP1}/",
        "socket": run.folder / "kiosk.sock",
    }
    run.processes.start("kiosk", inside("kiosk", [sys.executable, str(KIOSK), *_words(options)]))


def old_token(patience: Patience) -> str | None:
    """Use a token, which its holder got and used a minute ago, after its end."""
    _let_pass(patience.recorded, LIFE_SECONDS + 1)
    return patience.use(patience.token)


def old_statement(patience: Patience) -> str | None:
    """Start a node's `netd` anew with an empty disk, and tell it what was true of the node some time ago."""
    courier = patience.courier

    def answers() -> bool | None:
        patience.run.processes.check("netd-pole")
        try:
            return True if courier.ask({"op": "status"})["ok"] else None
        except (OSError, ValueError):
            return None

    wait_for("netd in the box", answers, seconds=20.0)
    _let_pass(patience.recorded, LEASE_SECONDS + 1)
    code = courier.tell(patience.statement)
    courier.told()  # what is true now is taken
    patience.run.processes.stop("netd-pole")
    return code


def held_back(patience: Patience) -> str | None:
    """Cut the wire over which an API hears of falls; then show it a token of a node."""
    _let_pass(patience.cut(), FEED_SECONDS)
    code, _ = wait_for("a refusal where the feed was cut", patience.hours, seconds=MARGIN_SECONDS, every=0.2)
    patience.run.processes.stop("kiosk")
    return code


def _let_pass(since: float, seconds: float) -> None:
    """Wait until some time after a moment, if that has not come yet."""
    time.sleep(max(0.0, since + seconds - time.monotonic()))


def _words(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


ATTACKS: Final[tuple[Attack[Patience], ...]] = (
    Attack("standing-recorded", "standing-stale", "a recorded statement, the node's box", old_statement),
    Attack("standing-held-back", "standing-stale", "the wire between the verifier and an API", held_back),
)
LATE: Final[tuple[Attack[Patience], ...]] = (
    Attack("expired-token", "token-expired", "a client's own key, an old token", old_token),
)
"""Carried out at the end of a run, when the token's time is over."""
