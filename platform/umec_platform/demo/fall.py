"""A node falls: its next boot is another one, and everything that it held is gone; the other node never notices."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import requests
from requests_oauth2client.exceptions import OAuth2Error

from umec_platform.demo import nodes
from umec_platform.demo.applications import Running
from umec_platform.demo.attacks.credentials import Holders
from umec_platform.demo.attacks.fallen import Fallen
from umec_platform.demo.run import MANAGEMENT, Run
from umec_platform.demo.timeline import Broken

__all__ = ["Moment", "fall", "recover", "refused_token"]

SERVICES: Final = "/mec_service_mgmt/v1/services"
PATIENCE_SECONDS: Final = 20.0


def fall(run: Run, falling: Running, standing: Running, holders: Holders) -> Fallen:
    """Reboot a node with another kernel command line, and measure from the verdict until each effect.

    Returns what a live token of an application on the node met.
    """
    node = falling.node
    token = holders.bound.token()
    if not holders.bound.call("GET", SERVICES, token=token).ok:
        raise Broken("the token of an application on the node did not work before the fall")
    before = time.monotonic()
    verdict = Moment(lambda: _untrusted(run.processes.log(f"agent-{node.name}")))
    live = Moment(lambda: _code(holders.bound.call("GET", SERVICES, token=token)) == "standing-fallen")
    dashboard = holders.outside.token()
    state = Moment(lambda: _suspended(holders.outside.call("GET", SERVICES, token=dashboard)))
    nodes.reboot(run, node, tamper="cmdline")
    fell = verdict.wait()
    run.timeline.note(f"{node.name} booted with another command line; its next round says untrusted")

    def effect(name: str, moment: float, detail: str = "") -> None:
        run.timeline.effect(name, ok=True, ms=max(0.0, (moment - fell) * 1000), detail=detail)

    refused_at = live.wait()
    effect("live token of an application on the node refused", refused_at, "standing-fallen")
    effect("its service is SUSPENDED for those who ask", state.wait())
    packet = falling.packets.first(lambda attempt: attempt.answer is None, after=before)
    effect("its packets go nowhere", packet.asked)
    name = falling.names.first(lambda attempt: attempt.answer is None, after=before)
    effect("its name is gone from the DNS", name.asked)
    run.timeline.effect(
        "new token refused", ok=refused_token(holders) is not None, ms=None, detail=str(refused_token(holders))
    )
    refused = _refused_call(run, falling)
    run.timeline.effect(
        "certificate and token of the node refused", ok=refused is not None, ms=None, detail=str(refused)
    )
    lost = standing.packets.failures(after=before) + standing.names.failures(after=before)
    asked = len(standing.packets.attempts) + len(standing.names.attempts)
    detail = f"{lost} of {asked} attempts failed"
    run.timeline.effect(
        f"{standing.node.name} stayed trusted and served throughout", ok=lost == 0, ms=None, detail=detail
    )
    return Fallen(code=_code(holders.bound.call("GET", SERVICES, token=token)), ms=(refused_at - fell) * 1000)


def recover(run: Run, fallen: Running) -> None:
    """Boot the good image again: the node is trusted, and its packets and its name come back by themselves."""
    started = time.monotonic()
    nodes.reboot(run, fallen.node)
    packet = fallen.packets.first(lambda attempt: attempt.answer is not None, after=started, seconds=PATIENCE_SECONDS)
    name = fallen.names.first(lambda attempt: attempt.answer is not None, after=started, seconds=PATIENCE_SECONDS)
    ms = (max(packet.at, name.at) - started) * 1000
    run.timeline.effect(f"{fallen.node.name} booted the good image: its packets and its name are back", ok=True, ms=ms)


class Moment:
    """When something was first seen to hold: asked every 20 ms by a thread of its own."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds
        self._at: float | None = None
        self._done = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._done.is_set():
            asked = time.monotonic()
            if self._holds():
                self._at = asked
                self._done.set()
            time.sleep(0.02)

    def wait(self) -> float:
        """Return the moment (monotonic seconds); raises `Broken` if it does not come."""
        if not self._done.wait(PATIENCE_SECONDS) or self._at is None:
            self._done.set()
            raise Broken(f"an effect of the fall did not arrive within {PATIENCE_SECONDS:g} s")
        return self._at


def _untrusted(log: Path) -> bool:
    return '"standing": "untrusted"' in log.read_text()


def _code(answer: requests.Response) -> str | None:
    return None if answer.ok else str(answer.json().get("code"))


def _suspended(answer: requests.Response) -> bool:
    found: list[dict[str, Any]] = answer.json() if answer.ok else []
    return bool(found) and all(each["state"] == "SUSPENDED" for each in found)


def refused_token(holders: Holders) -> str | None:
    """Ask for a token that is bound to the node; return the code of the refusal."""
    try:
        holders.bound.token()
    except OAuth2Error as error:
        return str(getattr(error, "error", error))
    return None


def _refused_call(run: Run, fallen: Running) -> str | None:
    try:
        nodes.call(run, fallen.node, "GET", f"{MANAGEMENT}/attest/v1/standings/own")
    except Broken as broken:
        return broken.code or broken.detail
    return None
