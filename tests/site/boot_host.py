"""A node image that runs an application, on a machine that boots; run inside namespaces (`test_boot_host.py`).

    boot_host.py LOCK       LOCK: packages.lock of an older build of the same recipe, whose packages are in the cache

Prints one JSON object: what was seen. The machine reaches the site by QEMU's own network, as a node behind a router:
nothing can reach it.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from umec_platform.demo import applications, chain, images
from umec_platform.demo.command import Processes, umec, wait_for
from umec_platform.demo.run import MANAGEMENT, Run
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.topology import NODES, SITE_ADDRESS
from umec_platform.demo.vm.machine import NODE, buy_tpm, switch_on

RECIPE = Path(__file__).parents[2] / "images" / "recipes" / "street-node.toml"
TENANT = NODES[0].tenant
PATIENCE = 600.0
"""Seconds for a step of a machine without hardware virtualisation, beside others."""


def recipe() -> str:
    """The street node's, whose users are on an interface that a machine in QEMU has; and smaller partitions."""
    text = RECIPE.read_text()
    services = f'services = ["{SITE_ADDRESS}:8443", "{SITE_ADDRESS}:8444"]'
    changes = {
        'access = ["eth1"]': 'access = ["dummy0"]',
        'address = "192.0.2.1/24"': f'address = "192.0.2.1/24"\n{services}',
        '"cls_bpf",': '"cls_bpf", "dummy",',
        "root = 1024": "root = 256",
        "data = 512": "data = 64",
    }
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def build(run: Run, lock: Path) -> Path:
    """Build the image for this run's site, predict what it measures, and publish that."""
    own, image, statement = run.folder / "host.toml", run.folder / "image", run.folder / "reference.dsse"
    own.write_text(recipe())
    options = ["--out", str(image), "--locked", str(lock), "--site-url", MANAGEMENT, "--site-ca", run.ca]
    umec("nodeimage", "build", str(own), *options, "--site-keys", str(run.state), seconds=900)
    options = ["--name", "street-node", "--version", "1", "--out", str(statement), "--root", str(image / "root.img")]
    umec("nodeimage", "predict", str(image), *options, "--key", str(run.folder / "reference-signer.key"), seconds=120)
    run.operator("nodeimage", "publish", str(statement))
    return image


def until(what: str, holds: Any) -> float:
    """Seconds until something holds; a command that fails meanwhile is asked again."""

    def looked() -> bool | None:
        with contextlib.suppress(Broken):
            return True if holds() else None
        return None

    return round(wait_for(what, looked, seconds=PATIENCE, every=1)[1] / 1000, 1)


def node(run: Run) -> dict[str, Any]:
    return run.operator("node", "show", NODE)


def main(lock: Path) -> None:
    folder = prepare()
    (folder / "logs").mkdir()
    for arguments in ("link add site type bridge", "link set site up", f"address add {SITE_ADDRESS}/24 dev site"):
        subprocess.run(["ip", *arguments.split()], check=True)
    seen: dict[str, Any] = {}
    with contextlib.ExitStack() as clean_up:
        processes = Processes(folder / "logs")
        clean_up.callback(processes.stop_all)
        run = Run(folder, Timeline(as_json=True), None, processes, clean_up)
        try:
            show(run, lock, seen)
        except Broken as broken:
            seen["broken"] = f"{broken.code}: {broken.detail}"
        console = folder / "node" / "console.log"
        if console.exists():
            lines = [
                line for line in console.read_text(errors="replace").splitlines() if "umec-node" in line or "{" in line
            ]
            seen["console"] = lines[-120:]
        if keep := os.environ.get("KEEP_LOGS"):
            subprocess.run(["cp", "-r", str(folder / "logs"), str(console), keep], check=False)
    print(json.dumps(seen))  # noqa: T201 - this is what the tests read
    sys.exit("broken" in seen)


def show(run: Run, lock: Path, seen: dict[str, Any]) -> None:
    ek = buy_tpm(run)
    chain.start_site(run, (), 15)
    image = build(run, lock)
    images.register_builders(run)
    digest = images.build_example(run)
    images.publish(run, NODES[0], digest)
    run.operator("tenant", "add", TENANT, "--address", f"{applications.ADDRESSES[TENANT]}/32")
    ticket = run.folder / "ticket"
    made = run.operator("node", "ticket", NODE, "--tenant", TENANT, "--image", "street-node", "--ek-sha256", ek)
    ticket.write_text(str(made["ticket"]))
    run.operator("host", "add", NODE, "--relay")
    began = time.monotonic()
    machine = switch_on(run, image, ticket=ticket)
    seen["trusted"] = until("the node to be trusted", lambda: node(run)["standing"] == "trusted")
    appd = applications.onboard(run, TENANT, digest)

    def started() -> bool:
        made = run.operator("app", "instantiate", appd, "--tenant", TENANT, "--host", NODE)
        seen["instance"] = made
        return True

    seen["started"] = until("the application to start", started)
    instance = str(seen["instance"]["id"])

    def serves() -> bool:
        return [one["state"] for one in applications.services(run)] == ["ACTIVE"]

    seen["serves"] = until("its service", serves)
    seen["rules"] = sorted({one["rule"]["state"] for one in run.operator("service", "rules")["rules"]})
    seen["log"] = run.operator("app", "log", instance)["text"]
    seen["after_a_round"] = (
        until("another round", lambda: rounds(machine) >= rounds_now + 2) if (rounds_now := rounds(machine)) else 0
    )
    seen["standing"] = node(run)["standing"]
    seen["seconds"] = round(time.monotonic() - began, 1)
    run.operator("node", "quarantine", NODE, "--reason", "a test")
    console = run.folder / "node" / "console.log"
    seen["withdrawn"] = until(
        "netd to withdraw", lambda: "everything is withdrawn" in console.read_text(errors="replace")
    )
    seen["suspended"] = [one["state"] for one in applications.services(run)]
    machine.switch_off()


def rounds(machine: Any) -> int:
    return sum(1 for event in machine.events() if event.get("event") == "round")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
