"""It comes back by itself: a node that was set aside, or that lost its power, and what the cameras see meanwhile."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
from requests_oauth2client import DPoPToken

from umec_attest.testing.swtpm import power_cycle
from umec_platform.demo import nodes
from umec_platform.demo.alarms import Alarms
from umec_platform.demo.applications import Running
from umec_platform.demo.attacks.credentials import Holders
from umec_platform.demo.command import umec_line, wait_for
from umec_platform.demo.fall import SERVICES, Moment, refused_token
from umec_platform.demo.run import MP1, Run, code_of
from umec_platform.demo.topology import StreetNode, inside

__all__ = ["NO_ANSWER", "Scene", "call", "log_of", "power_cut", "quarantine", "served_again"]

PATIENCE_SECONDS: Final = 60.0
NO_ANSWER: Final = "no-answer"
ANSWER_SECONDS: Final = 1.0
"""For a service on this machine that does little else."""
LONGEST_EFFECT: Final = 5.0
"""Seconds: two are promised, of a machine that is not the whole street."""
RENEWED_SECONDS: Final = 0.5
"""After a round: until the agent has renewed what it has to. It has asked for a challenge by then, too."""
GOOD_ROUNDS: Final = 2
"""Rounds of good evidence that do not lift a quarantine: one of them may have been under way."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the stories share: `here` is the application on the node that they happen to, `there` is the other one."""

    run: Run
    here: Running
    there: Running
    holders: Holders
    alarms: Alarms
    round_seconds: float

    def token(self) -> str:
        """Return a token for Mp1 that is bound to the node."""
        return self.holders.hand.token(f"{MP1}/")


def call(scene: Scene, token: str) -> str | None:
    """Call Mp1 with a token that is bound to the node; return the code of the refusal, or `NO_ANSWER`."""
    try:
        return code_of(scene.holders.hand.call("GET", f"{MP1}{SERVICES}", token, timeout=ANSWER_SECONDS))
    except httpx.TransportError:
        return NO_ANSWER


def served_again(running: Running, *, after: float) -> float:
    """Return when (monotonic seconds) the camera had both a packet and the name again."""
    attempts = [
        sight.first(lambda attempt: attempt.answer is not None, after=after, seconds=PATIENCE_SECONDS)
        for sight in (running.packets, running.names)
    ]
    return max(attempt.at for attempt in attempts)


def log_of(run: Run, node: StreetNode) -> "AgentLog":
    """Return what the agent of a node says from now on."""
    path = run.processes.log(f"agent-{node.name}")
    return AgentLog(path, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class AgentLog:
    """The lines of an agent's log from a place on."""

    path: Path
    begin: int

    def rounds(self) -> list[dict[str, Any]]:
        """Return the rounds that were judged."""
        lines = self.path.read_bytes()[self.begin :].splitlines()
        said = (json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}"))
        return [line for line in said if line["event"] == "round"]

    def wait(self, standing: str, *, times: int = 1) -> None:
        """Wait for rounds of good evidence after which the node is worth that."""

        def seen() -> bool | None:
            good = [one for one in self.rounds() if (one["verdict"], one["standing"]) == ("affirming", standing)]
            return True if len(good) >= times else None

        wait_for(f"{times} good rounds with the standing {standing}", seen, seconds=PATIENCE_SECONDS)


# --- an operator sets a node aside -----------------------------------------------------------------------------------


def quarantine(scene: Scene) -> None:
    """Set the node aside: all that it held goes, however good its evidence; readmit it: all comes back."""
    run, node = scene.run, scene.here.node
    token, dashboard = scene.token(), scene.holders.outside.token()
    gone = Moment(lambda: call(scene, token) == "standing-fallen")
    unlisted = Moment(lambda: not _listed(scene, dashboard))
    decided = _decide(run, "quarantine", node)

    def effect(name: str, moment: float) -> None:
        took = max(0.0, moment - decided)
        run.timeline.effect(name, ok=took < LONGEST_EFFECT, ms=took * 1000)

    run.timeline.note(f"an operator quarantines {node.name}")
    effect("quarantined: live token bound to the node refused", gone.wait())
    effect("quarantined: its services are removed from the registry", unlisted.wait())
    for what, sight in (("packets go nowhere", scene.here.packets), ("name is gone", scene.here.names)):
        effect(f"quarantined: its {what}", sight.first(lambda attempt: attempt.answer is None, after=decided).asked)
    refused = refused_token(scene.holders)
    run.timeline.effect("quarantined: new token refused", ok=refused is not None, ms=None, detail=str(refused))
    log_of(run, node).wait("quarantined", times=GOOD_ROUNDS)
    quiet = time.monotonic()
    kept = not _listed(scene, dashboard) and scene.here.packets.first(lambda _: True, after=quiet).answer is None
    run.timeline.effect(f"quarantined: so it stays after {GOOD_ROUNDS} rounds of good evidence", ok=kept, ms=None)
    readmitted = _decide(run, "readmit", node)
    back = max(served_again(scene.here, after=readmitted), _listed_again(scene))
    ms = (back - readmitted) * 1000
    run.timeline.effect(f"{node.name} is readmitted: services, packets and name are back by themselves", ok=True, ms=ms)
    provoked = frozenset({(node.name, "quarantined"), (node.name, "pending")})
    scene.alarms.told("quarantine and readmission", provoked)


def _decide(run: Run, what: str, node: StreetNode) -> float:
    """Have the operator decide about a node; return when the verifier wrote it down (monotonic seconds)."""
    decided = run.operator("node", what, node.name, "--reason", "the demo")["changed_at"]
    ago = datetime.now(UTC) - datetime.fromisoformat(decided)  # noqa: TID251 - a demo lives in the real time
    return time.monotonic() - ago.total_seconds()


def _listed(scene: Scene, dashboard: DPoPToken) -> bool:
    """Whether somebody of the tenant, who belongs to no node, finds its service."""
    answer = scene.holders.outside.call("GET", SERVICES, token=dashboard)
    return answer.ok and any(each["state"] == "ACTIVE" for each in answer.json())


def _listed_again(scene: Scene) -> float:
    dashboard = scene.holders.outside.token()
    wait_for("its services", lambda: _listed(scene, dashboard) or None, seconds=PATIENCE_SECONDS)
    return time.monotonic()


# --- a node loses its power ------------------------------------------------------------------------------------------


def power_cut(scene: Scene) -> None:
    """Cut the node's power between challenge and evidence, and boot the good image."""
    run, node = scene.run, scene.here.node
    agent = f"agent-{node.name}"
    log_of(run, node).wait("trusted")
    time.sleep(RENEWED_SECONDS)
    with _tpm_hangs(run, node):  # the agent wants nothing of it before the next round: then a quote
        time.sleep(scene.round_seconds + RENEWED_SECONDS)
        run.processes.stop(agent, signal.SIGKILL)
    power_cycle(run.tcti[node.name], orderly=False)
    run.timeline.note(f"{node.name} loses its power between challenge and evidence")
    on = time.monotonic()
    nodes.boot_image(run, node.name)
    log = log_of(run, node)
    line = umec_line("node", "run", "--state", str(run.folder / agent), "--json")
    run.processes.start(agent, inside(node.name, [*line, *nodes.logs(run, node.name)]))
    log.wait("trusted")
    trusted = time.monotonic()
    back = max(served_again(scene.here, after=trusted), _listed_again(scene))
    run.timeline.effect(
        f"{node.name} booted the good image: trusted, and all of it is back by itself",
        ok=True,
        ms=(back - on) * 1000,
        detail=", ".join(finding["id"] for finding in log.rounds()[0]["findings"]),
    )
    scene.alarms.told("power cut in mid-round", frozenset({(node.name, "lapsed")}))


@contextlib.contextmanager
def _tpm_hangs(run: Run, node: StreetNode) -> Iterator[None]:
    """Have the node's TPM answer nothing, so that whoever asks for a quote waits for it."""
    parent = run.processes.running[f"tpm-{node.name}"].pid
    swtpm = int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
    os.kill(swtpm, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(swtpm, signal.SIGCONT)
