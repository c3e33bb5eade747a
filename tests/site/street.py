"""One node with one application, whose site is stopped, killed and started again; run inside namespaces by the tests.

Prints one JSON object: what was seen. Parts of the demo build the street; nothing here repairs what a restart breaks.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from requests_oauth2client.exceptions import OAuth2Error

from umec_core.errors import UmecError
from umec_platform.demo import applications, chain, images, nodes
from umec_platform.demo.attacks.credentials import Holders
from umec_platform.demo.command import wait_for
from umec_platform.demo.fall import SERVICES
from umec_platform.demo.recovery_site import start_again
from umec_platform.demo.run import Run, begun
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.sight import Sight
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.topology import NODES, build_street, inside
from umec_platform.netd.client import NetdClient

NODE = NODES[0]
AGENT = f"agent-{NODE.name}"
PATIENCE = 40.0
"""Seconds for everything to come back: Python starts four times over on a busy machine."""


def build(run: Run) -> tuple[applications.Running, Holders]:
    """Everything up to a packet that flows."""
    build_street()
    tpm = nodes.start_tpm(run, NODE.name)
    chain.start_site(run)
    nodes.publish_reference_set(run)
    nodes.boot(run, NODE)
    nodes.enrol(run, NODE, tpm["ek_chain"])
    nodes.attest(run, NODE)
    nodes.get_credentials(run, NODE)
    images.register_builders(run)
    digest = images.build_example(run)
    images.publish(run, NODE, digest)
    applications.add_tenant(run, NODE)
    running = applications.deploy(run, NODE, digest)
    return running, Holders(run, running.instance)


def shown(run: Run, instance: str) -> dict[str, Any]:
    return run.operator("app", "show", instance)


def states(run: Run) -> list[str]:
    return sorted(one["state"] for one in applications.services(run))


def last(sight: Sight) -> str | None:
    """What the camera sees now."""
    return sight.first(lambda _: True, after=time.monotonic()).answer


def rules_in_kernel() -> bool:
    done = subprocess.run(inside(NODE.name, ["nft", "list", "tables"]), check=True, capture_output=True, text=True)
    return "umec" in done.stdout


def restart_while_all_is_well(run: Run, running: applications.Running) -> dict[str, Any]:
    """Stop the site in good order, start it, and only look."""
    before = shown(run, running.instance)
    began = time.monotonic()
    status = run.processes.stop("site", signal.SIGINT)
    stopped = time.monotonic()
    silent = (last(running.packets), last(running.names), rules_in_kernel())
    ready = start_again(run) / 1000
    packet = running.packets.first(lambda one: one.answer is not None, after=stopped, seconds=PATIENCE)
    name = running.names.first(lambda one: one.answer is not None, after=stopped, seconds=PATIENCE)
    after = shown(run, running.instance)
    wait_for("its second beginning", lambda: announced(run, running, 2), seconds=PATIENCE)
    wrote = run.operator("app", "log", running.instance, "--lines", "1000")["text"]
    rules = run.operator("service", "rules")["rules"]
    return {
        "status": status,
        "stop_seconds": stopped - began,
        "traceback": "Traceback" in run.processes.log("site").read_text(),
        "while_down": silent,
        "ready_seconds": ready,
        "back_seconds": max(packet.at, name.at) - stopped,
        "same_instance": json.loads(packet.answer or "{}").get("from") == running.instance,
        "named": name.answer == running.address,
        "states": (before["instantiatedAppState"], after["instantiatedAppState"]),
        "services": states(run),
        "rules": sorted({one["rule"]["state"] for one in rules}),
        "wrote": "answering on" in wrote,
    }


def netd_killed(run: Run, running: applications.Running) -> dict[str, Any]:
    """Kill the netd of the node alone, so that its containers and rules are orphans; then only look."""
    before = asyncio.run(netd(run).status())["began"]
    began = time.monotonic()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        words = command.read_bytes().split(b"\0")
        if b"netd" in words and NODE.name.encode() in words:
            os.kill(int(command.parent.name), signal.SIGKILL)

    def anew() -> bool | None:
        with contextlib.suppress(UmecError):
            return True if asyncio.run(netd(run).status())["began"] != before else None
        return None

    wait_for("another netd", anew, seconds=PATIENCE)
    wait_for("its third beginning", lambda: announced(run, running, 3), seconds=PATIENCE)
    packet = running.packets.first(lambda one: one.answer is not None, after=time.monotonic())
    name = running.names.first(lambda one: one.answer is not None, after=time.monotonic())
    return {"back_seconds": max(packet.at, name.at) - began, "services": states(run)}


def announced(run: Run, running: applications.Running, times: int) -> bool | None:
    """Whether the program has announced itself so many times, by the whole log that netd keeps."""
    kept = run.state / "netd" / NODE.name / "logs" / f"{running.instance}.log"
    return True if kept.exists() and kept.read_text().count("answering on") == times else None


def netd(run: Run) -> NetdClient:
    return NetdClient(run.state / "netd" / NODE.name / "netd.sock")


def killed_between_verdict_and_effect(run: Run, running: applications.Running, probes: Holders) -> dict[str, Any]:
    """Let the verdict be written and not its effect; kill; then only start."""
    token = probes.bound.token()
    honest = probes.bound.call("GET", SERVICES, token=token).status_code
    database = run.state / "platform" / "platform.db"
    fallen = '"standing": "untrusted"'
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=20)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        nodes.reboot(run, NODE, tamper="cmdline")
        wait_for("the verdict", lambda: fallen in run.processes.log(AGENT).read_text() or None, seconds=20)
        run.processes.stop("site", signal.SIGKILL)
        run.processes.stop(AGENT, signal.SIGKILL)
        killed = time.monotonic()
        lock.execute("ROLLBACK")
    unwritten = rows(database, "SELECT standing FROM hosts"), rows(database, "SELECT suspended FROM services")
    wait_for("netd to end with its site", lambda: None if rules_in_kernel() else True, seconds=20)
    netd_ended = time.monotonic() - killed
    start_again(run)
    live = code_of_call(probes, token)

    def suspended() -> bool | None:
        return True if states(run) == ["SUSPENDED"] else None

    wait_for("its service to be suspended", suspended, seconds=20)

    def stopped() -> str | None:
        return shown(run, running.instance).get("stopped", {}).get("code")

    why, _ = wait_for("its instance to be down", stopped, seconds=20)
    time.sleep(3)  # longer than two looks at what the host runs
    answered = [one.answer for one in running.packets.attempts + running.names.attempts if one.asked > killed + 1]
    return {
        "honest": honest,
        "unwritten": unwritten,
        "netd_ended_seconds": netd_ended,
        "live_token_at_once": live,
        "live_token": code_of_call(probes, token),
        "new_token": refused_token(probes),
        "why": why,
        "services": states(run),
        "standing": [one["standing"] for one in run.operator("host", "list")["hosts"]],
        "asked": len(answered),
        "answered": [one for one in answered if one is not None],
        "netd": in_force(run),
    }


def in_force(run: Run) -> dict[str, Any]:
    """What netd itself says."""
    told = asyncio.run(netd(run).status())
    return {name: told[name] for name in ("in_force", "traffic", "dns", "instances", "standing")}


def refused_token(probes: Holders) -> str | None:
    try:
        probes.bound.token()
    except OAuth2Error as error:
        return str(getattr(error, "error", error))
    return None


def code_of_call(probes: Holders, token: Any) -> str | None:
    answer = probes.bound.call("GET", SERVICES, token=token)
    return None if answer.ok else str(answer.json().get("code"))


def rows(database: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute(query)]


def main() -> None:
    seen: dict[str, Any] = {}
    with begun(prepare(), Timeline(as_json=True)) as run:
        try:
            began = time.monotonic()
            running, probes = build(run)
            seen["build_seconds"] = time.monotonic() - began
            began = time.monotonic()
            seen["restart"] = restart_while_all_is_well(run, running)
            seen["restart_seconds"] = time.monotonic() - began
            began = time.monotonic()
            seen["netd"] = netd_killed(run, running)
            seen["netd_seconds"] = time.monotonic() - began
            began = time.monotonic()
            seen["kill"] = killed_between_verdict_and_effect(run, running, probes)
            seen["kill_seconds"] = time.monotonic() - began
        except Broken as broken:
            seen["broken"] = f"{broken.code}: {broken.detail}"
            seen["log"] = run.processes.log("site").read_text()[-4000:]
    print(json.dumps(seen))  # noqa: T201 - this is what the tests read
    sys.exit("broken" in seen)


if __name__ == "__main__":
    main()
