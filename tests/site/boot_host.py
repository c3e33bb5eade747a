"""A node image that runs an application, on a machine that boots; run inside namespaces by `test_boot_host.py`.

The first line says what image to build, as JSON: whoever started this builds it, where packages can be fetched, and
then writes `built` to the standard input. The last line is what was seen. The machine reaches the site by QEMU's own
network, as a node behind a router: nothing can reach it. Its users are on a second network, a tap.
"""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from umec_platform.demo import applications, chain, images
from umec_platform.demo.command import umec, wait_for
from umec_platform.demo.probe import ask_dns, ask_http
from umec_platform.demo.run import MANAGEMENT, Run, begun
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.topology import NODES, SITE_ADDRESS
from umec_platform.demo.vm.machine import NODE, Machine, buy_tpm, switch_on

RECIPE = Path(__file__).parents[2] / "images" / "recipes" / "street-node.toml"
NAME = "street-node"
TENANT = NODES[0].tenant
ADDRESS = applications.ADDRESSES[TENANT]
ACCESS, USER, RESOLVER = "users", "192.0.2.10/24", "192.0.2.1"
PATIENCE = 300.0
"""Seconds for a step of a machine without hardware virtualisation, beside others."""
LINES = 60
"""Of the console, where something went wrong."""


def recipe() -> str:
    """The street node's, with smaller partitions, for a site whose Mp1 its instances may call."""
    services = f'services = ["{SITE_ADDRESS}:8443", "{SITE_ADDRESS}:8444"]'
    changes = {
        'address = "192.0.2.1/24"': f'address = "192.0.2.1/24"\n{services}',
        "root = 1024": "root = 256",
        "data = 512": "data = 64",
    }
    text = RECIPE.read_text()
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def tell(what: dict[str, Any]) -> None:
    """Write one line for whoever started this."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def lay_networks() -> None:
    """Give the site an address, and the node's users a network."""
    lines = ["link add site type bridge", "link set site up", f"address add {SITE_ADDRESS}/24 dev site"]
    lines += [f"tuntap add dev {ACCESS} mode tap", f"address add {USER} dev {ACCESS}", f"link set {ACCESS} up"]
    for line in [*lines, f"route add {ADDRESS} via {RESOLVER}"]:
        subprocess.run(["ip", *line.split()], check=True)


def order(run: Run) -> Path:
    """Say what image is to be built for this run's site, and where."""
    own, image = run.folder / "host.toml", run.folder / "image"
    own.write_text(recipe())
    options = ["--out", str(image), "--site-url", MANAGEMENT, "--site-ca", run.ca, "--site-keys", str(run.state)]
    tell({"build": [str(own), *options]})
    return image


def publish(run: Run, image: Path) -> None:
    """Wait for the image, predict what it measures, and give that to the verifier."""
    if sys.stdin.readline() != "built\n":
        raise Broken("the image was not built", "image-missing")
    statement = run.folder / "reference.dsse"
    options = ["--name", NAME, "--version", "1", "--out", str(statement), "--root", str(image / "root.img")]
    umec("nodeimage", "predict", str(image), *options, "--key", str(run.folder / "reference-signer.key"), seconds=120)
    run.operator("nodeimage", "publish", str(statement))


def boot(run: Run, image: Path, ek: str) -> Machine:
    """Switch a node of that image on."""
    ticket = run.folder / "ticket"
    made = run.operator("node", "ticket", NODE, "--tenant", TENANT, "--image", NAME, "--ek-sha256", ek)
    ticket.write_text(str(made["ticket"]))
    return switch_on(run, image, ticket=ticket, access=ACCESS)


def until(what: str, holds: Callable[[], bool], *, every: float = 0.5) -> None:
    wait_for(what, lambda: True if holds() else None, seconds=PATIENCE, every=every)


def said(run: Run, words: str) -> Callable[[], bool]:
    """Whether the console of the node has these words."""
    return lambda: words in (run.folder / "node" / "console.log").read_text(errors="replace")


def rounds(machine: Machine) -> list[dict[str, Any]]:
    return [event for event in machine.events() if event.get("event") == "round"]


def judged(run: Run) -> dict[str, Any]:
    """How far the verifier has judged the log of starts of the node: what it keeps between two rounds."""
    with contextlib.closing(sqlite3.connect(f"file:{run.state / 'attest' / 'attest.db'}?mode=ro", uri=True)) as kept:
        ((found,),) = kept.execute("SELECT start_checkpoint FROM node").fetchall()
    return dict(json.loads(found)) if found else {"entries": 0}


def show(run: Run, seen: dict[str, Any]) -> None:
    """Build, boot, start, ask, and withdraw; `seen` grows meanwhile."""
    seconds, began = seen.setdefault("seconds", {}), time.monotonic()

    def mark(step: str) -> None:
        seconds[step] = round(time.monotonic() - began, 1)

    lay_networks()
    ek = buy_tpm(run)
    chain.start_site(run, (), 15)
    image = order(run)
    images.register_builders(run)
    digest = images.build_example(run)
    images.publish(run, NODES[0], digest)
    run.operator("tenant", "add", TENANT, "--address", f"{ADDRESS}/32")
    appd = applications.onboard(run, TENANT, digest)
    run.operator("host", "add", NODE, "--relay")
    publish(run, image)
    mark("built and published")
    machine = boot(run, image, ek)
    machine.wait("the boot", "outcome")
    mark("booted")
    machine.wait("a round", "round")
    until("the node's relay", lambda: "relay began" in run.processes.log("site").read_text())
    seen["before"] = {"standing": run.operator("node", "show", NODE)["standing"], "judged": judged(run)}
    mark("stands")
    made = run.operator("app", "instantiate", appd, "--tenant", TENANT, "--host", NODE)
    seen["state"] = made["instantiatedAppState"]["operationalState"]
    mark("started")
    until("its rule", lambda: ask_http(ADDRESS, "8080") is not None)
    until("its name", lambda: ask_dns(RESOLVER, f"hello.{TENANT}.mec.internal") is not None)
    mark("answers")
    seen["own"] = json.loads(ask_http(ADDRESS, "8080") or "{}").get("from") == made["id"]
    seen["name"] = ask_dns(RESOLVER, f"hello.{TENANT}.mec.internal") == ADDRESS
    seen["services"] = [one["state"] for one in applications.services(run)]
    seen["log"] = run.operator("app", "log", str(made["id"]))["text"]
    until("its start to be judged", lambda: judged(run)["entries"] > 0)
    last = len(rounds(machine))
    until("another round", lambda: len(rounds(machine)) > last)
    seen["after"] = {"standing": run.operator("node", "show", NODE)["standing"], "judged": judged(run)}
    seen["findings"] = [finding for event in rounds(machine) for finding in event["findings"]]
    mark("judged")
    run.operator("node", "quarantine", NODE, "--reason", "a test")
    until("netd to withdraw", said(run, "everything is withdrawn"))
    until("no answer", lambda: ask_http(ADDRESS, "8080") is None)
    seen["suspended"] = [one["state"] for one in applications.services(run)]
    mark("withdrawn")
    machine.switch_off()


def main() -> None:
    seen: dict[str, Any] = {}
    with begun(prepare(), Timeline(as_json=True)) as run:
        try:
            show(run, seen)
        except Exception as error:  # noqa: BLE001 - the test shows it, with what was seen until then
            seen["broken"] = (
                traceback.format_exc() if not isinstance(error, Broken) else f"{error.code}: {error.detail}"
            )
            for name, file in (("console", run.folder / "node" / "console.log"), ("site", run.processes.log("site"))):
                seen[name] = file.read_text(errors="replace").splitlines()[-LINES:] if file.exists() else None
    tell(seen)
    sys.exit("broken" in seen)


if __name__ == "__main__":
    main()
