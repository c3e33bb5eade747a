"""A node with its netd on another machine than the platform: TCP between them, nothing else; run inside namespaces.

Prints one JSON object: what was seen. The netd and the relay have a mount namespace of their own, in which the site's
folder is empty; the platform is told no socket.
"""

import json
import subprocess
import sys
import threading
import time
from typing import Any

from umec_platform.demo import applications, chain, images, nodes
from umec_platform.demo.command import umec_line, wait_for
from umec_platform.demo.recovery_site import start_again
from umec_platform.demo.run import MANAGEMENT, MP1, Run, begun
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.topology import ACCESS_INTERFACE, NODES, SITE_ADDRESS, build_street, inside
from umec_platform.netd.client import NetdClient

NODE, OTHER = NODES
PATIENCE = 60.0
RELAY = f"{MANAGEMENT}/platform/v1/relay"


def far(run: Run, module: str, *arguments: str) -> list[str]:
    """Run a module on the node, where nothing of the site's folder is."""
    script = f'mount -t tmpfs tmpfs {run.state}; exec "$@"'
    line = [sys.executable, "-m", module, *arguments]
    return inside(NODE.name, ["unshare", "--mount", "sh", "-c", script, "sh", *line])


def start_netd(run: Run) -> None:
    """netd, as an image has it: a settings file, and the agent for the name of the node."""
    settings = run.folder / "host.json"
    settings.write_text(
        json.dumps(
            {
                "verifier_issuer": f"{MANAGEMENT}/attest/v1",
                "verifier_jwks": json.loads((run.state / "verifier.jwks.json").read_text()),
                "decision_issuer": f"{MANAGEMENT}/platform/v1",
                "decision_jwks": json.loads((run.state / "decision.jwks.json").read_text()),
                "access": [ACCESS_INTERFACE],
                "access_address": NODE.access,
                "pool": NODE.pool,
                "services": [f"{SITE_ADDRESS}:8443", f"{SITE_ADDRESS}:8444"],
                "lease_seconds": 90,
            }
        )
    )
    given = ["--settings", str(settings), "--agent", agent_state(run), "--state", str(run.folder / "netd")]
    given += ["--socket", socket(run), "--allow-uid", "0"]
    run.processes.start("netd", far(run, "umec_platform.netd", *given))


def start_relay(run: Run, name: str = "relay") -> None:
    given = ["--site", MANAGEMENT, "--agent", agent_state(run), "--netd", socket(run)]
    given += ["--images", str(run.folder / "node-images")]
    run.processes.start(name, far(run, "umec_platform.relay", *given))


def agent_state(run: Run) -> str:
    return str(run.folder / f"agent-{NODE.name}")


def socket(run: Run) -> str:
    return str(run.folder / "netd.sock")


def status(run: Run) -> dict[str, Any]:
    """What netd itself says: the test looks beside the platform."""
    program = f"import asyncio; print(__import__('json').dumps(asyncio.run(NetdClient({socket(run)!r}).status())))"
    line = [sys.executable, "-c", f"from {NetdClient.__module__} import NetdClient; {program}"]
    return dict(json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout))


def code_of(work: Any) -> str | None:
    try:
        work()
    except Broken as broken:
        return broken.code
    return None


def until(what: str, holds: Any) -> float:
    return wait_for(what, lambda: True if holds() else None, seconds=PATIENCE)[1] / 1000


def link(state: str) -> None:
    subprocess.run(["ip", "link", "set", NODE.name, state], check=True)


def build(run: Run) -> applications.Running:
    build_street()
    tpms = {node.name: nodes.start_tpm(run, node.name) for node in NODES}
    chain.start_site(run, ())
    nodes.publish_reference_set(run)
    for node in NODES:
        nodes.boot(run, node)
        nodes.enrol(run, node, tpms[node.name]["ek_chain"])
        nodes.attest(run, node)
        nodes.get_credentials(run, node)
    start_netd(run)
    start_relay(run)
    images.register_builders(run)
    digest = images.build_example(run)
    images.publish(run, NODE, digest)
    run.operator("tenant", "add", NODE.tenant, "--address", f"{applications.ADDRESSES[NODE.tenant]}/32")
    run.operator("host", "add", NODE.name, "--relay")
    until("netd", lambda: "relay began" in run.processes.log("relay").read_text())
    run.facts["digest"] = digest
    return applications.deploy(run, NODE, digest)


def other_node(run: Run) -> dict[str, Any]:
    """The other node stands, and has a certificate and a token of its own: it is still another node."""
    said = {}
    for path, method in (("", "POST"), (f"/{'0' * 32}/requests", "GET"), (f"/{'0' * 32}/answers", "POST")):
        words = ["node", "call", method, f"{RELAY}{path}", "--state", str(run.folder / f"agent-{OTHER.name}"), "--json"]
        done = subprocess.run(inside(OTHER.name, umec_line(*words)), check=False, capture_output=True, text=True)
        said[path.rpartition("/")[2]] = json.loads(json.loads(done.stdout)["body"])["code"]
    return said


def cut(run: Run, running: applications.Running) -> dict[str, Any]:
    """Take the node's uplink away, with a request under way."""
    log: list[str | None] = []
    asking = threading.Thread(target=lambda: log.append(code_of(lambda: run.operator("app", "log", running.instance))))
    link("down")
    began = time.monotonic()
    asking.start()
    asking.join()
    asked = time.monotonic() - began
    still = running.packets.first(lambda _: True, after=time.monotonic()).answer
    link("up")

    def answers() -> bool:
        return code_of(lambda: run.operator("app", "log", running.instance)) is None

    back = until("the host to answer again", answers)
    return {
        "code": log[0],
        "asked": asked,
        "still": still is not None,
        "back": back,
        "instances": len(status(run)["instances"]),
    }


def restarted(run: Run, running: applications.Running) -> dict[str, Any]:
    """Stop the site in good order and start it; the node goes on alone meanwhile."""
    before = status(run)
    run.processes.stop("site")
    alone = running.packets.first(lambda _: True, after=time.monotonic()).answer
    start_again(run)
    back = until("the host to answer", lambda: code_of(lambda: run.operator("app", "log", running.instance)) is None)
    after = status(run)
    shown = run.operator("app", "show", running.instance)
    return {
        "alone": alone is not None,
        "back": back,
        "same": before["began"] == after["began"] and before["instances"] == after["instances"],
        "state": shown["instantiatedAppState"]["operationalState"],
        "in_force": after["in_force"],
    }


def relay_again(run: Run, running: applications.Running) -> dict[str, Any]:
    """A second relay of the same node takes the place of the first."""
    start_relay(run, "second")
    replaced = until("the first to be replaced", lambda: "relay-replaced" in run.processes.log("relay").read_text())
    works = code_of(lambda: run.operator("app", "log", running.instance))
    run.processes.stop("relay")
    return {"replaced": replaced, "code": works}


def fall(run: Run, running: applications.Running) -> dict[str, Any]:
    """The node boots something else, and its verdict falls."""
    held = status(run)
    began = time.monotonic()
    nodes.reboot(run, NODE, tamper="cmdline")

    def withdrawn() -> bool:
        return not status(run)["in_force"]

    seconds = until("netd to withdraw", withdrawn)
    packet = running.packets.first(lambda one: one.answer is None, after=time.monotonic())
    name = running.names.first(lambda one: one.answer is None, after=time.monotonic())
    until(
        "the relay to be refused", lambda: "standing-fallen" in relay_log(run) or "node-not-attested" in relay_log(run)
    )
    services = sorted(one["state"] for one in applications.services(run))
    return {
        "held": held["in_force"],
        "seconds": time.monotonic() - began,
        "lease_seconds": seconds,
        "packet": packet.answer,
        "name": name.answer,
        "standing": status(run)["standing"],
        "services": services,
        "log": code_of(lambda: run.operator("app", "log", running.instance)),
    }


def relay_log(run: Run) -> str:
    return run.processes.log("second").read_text()


def main() -> None:
    seen: dict[str, Any] = {}
    with begun(prepare(), Timeline(as_json=True)) as run:
        try:
            running = build(run)
            kept = run.folder / "node-images" / "sha256"
            seen["built"] = {"status": status(run), "images": len(list(kept.iterdir())), "mp1": MP1}
            for story in (cut, restarted, relay_again, fall):
                began = time.monotonic()
                seen[story.__name__] = story(run, running)
                seen[f"{story.__name__}_seconds"] = time.monotonic() - began
                if story is cut:
                    seen["other"] = other_node(run)
        except Broken as broken:
            seen["broken"] = f"{broken.code}: {broken.detail}"
            for name in ("site", "netd", "relay"):
                log = run.processes.log(name)
                seen[name] = log.read_text()[-3000:] if log.exists() else None
    print(json.dumps(seen))  # noqa: T201 - this is what the tests read
    sys.exit("broken" in seen)


if __name__ == "__main__":
    main()
