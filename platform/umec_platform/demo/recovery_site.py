"""It comes back by itself: the site is stopped, killed, or cut off from its own feed, for longer than a node may lapse.

Who needs to know what a node is worth refuses meanwhile (`standing-stale`), rules hold as long as their lease, and no
node loses its standing for an absence that was not its own.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import httpx

from umec_platform.demo import nodes
from umec_platform.demo.command import umec_line, wait_for
from umec_platform.demo.recovery import NO_ANSWER, Scene, call, log_of, served_again
from umec_platform.demo.run import MANAGEMENT, Run
from umec_platform.demo.timeline import Broken

__all__ = ["AWAY_SECONDS", "feed_cut", "site_killed", "site_stopped", "start_again"]

AWAY_SECONDS: Final = 12.0
"""Longer than a silent node of the demo keeps its standing (6 s), and than a feed may be old (10 s)."""
START_SECONDS: Final = 60.0
"""Python starts four times over, on two cores that do everything else, too."""
BACK_SECONDS: Final = 60.0
NO_OUTAGE: Final = 2.0
"""Seconds: a camera asks twenty times a second, and one attempt that gets lost on a busy machine is no outage."""
SHORTEST_LEASE: Final = 65.0
LONGEST_LEASE: Final = 90.0
"""Seconds that are left of a lease: it is renewed every 20, and one renewal may have been under way."""
STALE: Final = "standing-stale"
EXPIRED: Final = "token-expired"
CUT: Final = "demo_cut"


def site_stopped(scene: Scene, seconds: float = AWAY_SECONDS) -> None:
    """Stop the site's process (SIGSTOP), verifier and all, and let it go on."""
    run, token = scene.run, scene.token()
    logs = [log_of(run, running.node) for running in (scene.here, scene.there)]
    with _stopped(run):
        began = time.monotonic()
        unanswered = call(scene, token)
        time.sleep(seconds)
        held = _held(scene, since=began)
    again = time.monotonic()
    refusals = _until_good(scene, token)
    ms = (time.monotonic() - again) * 1000
    name = f"the site stopped for {seconds:.0f} s"
    run.timeline.effect(f"{name}: no call was answered", ok=unanswered == NO_ANSWER, ms=None)
    lasted = min(seconds, SHORTEST_LEASE) <= held <= LONGEST_LEASE + NO_OUTAGE
    run.timeline.effect(f"{name}: rules and names held, by their lease", ok=lasted, ms=held * 1000)
    run.timeline.effect(f"{name}: calls in a node's name work again", ok=True, ms=ms, detail=", ".join(refusals))
    for log in logs:
        log.wait("trusted")
    if held + NO_OUTAGE < seconds:
        back = max(served_again(running, after=again) for running in (scene.here, scene.there))
        run.timeline.effect(f"{name}: both applications are back", ok=True, ms=(back - again) * 1000)
    scene.alarms.told("site stopped, verifier and all")


def site_killed(scene: Scene, seconds: float = AWAY_SECONDS) -> None:
    """Kill the site's process, and start it after a while: its netd ended with it, and all of it comes back."""
    run, token = scene.run, scene.token()
    run.processes.stop("site", signal.SIGKILL)
    unanswered = call(scene, token)
    time.sleep(seconds)
    silent = all(
        sight.first(lambda _: True, after=time.monotonic()).answer is None
        for running in (scene.here, scene.there)
        for sight in (running.packets, running.names)
    )
    name = f"the site killed for {seconds:.0f} s"
    run.timeline.effect(
        f"{name}: no call was answered, and its netd had ended with it: no packet, no name",
        ok=unanswered == NO_ANSWER and silent,
        ms=None,
    )
    started = time.monotonic()
    logs = [log_of(run, running.node) for running in (scene.here, scene.there)]
    start_again(run)
    refusals = _until_good(scene, token)
    back = max(served_again(running, after=started) for running in (scene.here, scene.there))
    for log in logs:
        log.wait("trusted")
    run.timeline.effect(
        f"{name}: started again, both applications are back by themselves",
        ok=True,
        ms=(back - started) * 1000,
        detail=", ".join(refusals),
    )
    scene.alarms.told("site killed, verifier and all")


def feed_cut(scene: Scene) -> None:
    """Cut the site's APIs off from the standing feed alone: nodes go on to be heard by the verifier."""
    run, node, token = scene.run, scene.here.node, scene.token()
    dashboard = scene.holders.foreign.token()
    began, log = time.monotonic(), log_of(run, node)
    with _cut():
        _, ms = wait_for("a stale feed", lambda: call(scene, token) == STALE or None, seconds=BACK_SECONDS, every=0.25)
        run.timeline.effect("feed cut off: calls in a node's name are refused", ok=True, ms=ms, detail=STALE)
        refused = _own_standing(scene)
        run.timeline.effect("so is the node itself, with its certificate", ok=refused == STALE, ms=None, detail=refused)
        there = scene.holders.foreign.call("GET", "/mec_service_mgmt/v1/services", token=dashboard)
        run.timeline.effect("who belongs to no node goes on", ok=there.ok, ms=None)
        log.wait("trusted", times=2)
    again = time.monotonic()
    _until_good(scene, token)
    ms = (time.monotonic() - again) * 1000
    run.timeline.effect("feed back: calls in a node's name work again", ok=True, ms=ms)
    held = time.monotonic() - began - _held(scene, since=began) < NO_OUTAGE
    run.timeline.effect("packets and names never noticed", ok=held, ms=None)
    scene.alarms.told("feed cut off")


def start_again(run: Run) -> float:
    """Start `umec up` as it was started before; return the milliseconds until it was ready."""
    run.processes.start("site", umec_line("up", "--config", str(run.folder / "umec.toml"), "--json"))

    def ready() -> bool | None:
        run.processes.check("site")
        with contextlib.suppress(httpx.TransportError), run.http() as http:
            return True if http.get(f"{MANAGEMENT}/readyz").status_code == 200 else None
        return None

    return wait_for("umec up, again", ready, seconds=START_SECONDS)[1]


def _until_good(scene: Scene, token: str) -> list[str]:
    """Call until a call is not refused, with a new token if need be; return the codes until then, each once."""
    codes: list[str] = []

    def good() -> bool | None:
        nonlocal token
        code = call(scene, token)
        if code == EXPIRED:
            try:
                token = scene.token()
            except Broken as refused:
                code = refused.code
        if code is not None and code not in codes:
            codes.append(code)
        return True if code is None else None

    wait_for("a call in the node's name", good, seconds=BACK_SECONDS)
    return codes


def _held(scene: Scene, *, since: float) -> float:
    """Return for how long (seconds) every camera was answered since a moment, until the first outage or until now."""
    now = time.monotonic()
    ends = []
    for running in (scene.here, scene.there):
        for sight in (running.packets, running.names):
            answered = [since, *(one.at for one in sight.attempts if one.at > since and one.answer is not None), now]
            outages = (before for before, after in pairwise(answered) if after - before > NO_OUTAGE)
            ends.append(next(outages, now))
    return min(ends) - since


def _own_standing(scene: Scene) -> str:
    try:
        nodes.call(scene.run, scene.here.node, "GET", f"{MANAGEMENT}/attest/v1/standings/own")
    except Broken as broken:
        return broken.code or broken.detail
    return "no refusal"


@contextlib.contextmanager
def _stopped(run: Run) -> Iterator[None]:
    site = run.processes.running["site"].pid
    os.kill(site, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(site, signal.SIGCONT)


@contextlib.contextmanager
def _cut() -> Iterator[None]:
    """Lose every packet of the site's own connections to the verifier's listener; nodes come in on another link."""
    nft = ["nft", "-f", "-"]
    chain = "type filter hook input priority 0; iif lo tcp dport 8443 drop;"
    rules = f"table inet {CUT} {{ chain input {{ {chain} }}; }}"
    subprocess.run(nft, input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(nft, input=f"delete table inet {CUT}", text=True, check=True)
